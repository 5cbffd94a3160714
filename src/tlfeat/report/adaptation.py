"""An adaptation as sentences, table, chart and page."""

from __future__ import annotations

from typing import Any

import numpy as np

from tlfeat.evaluate.intervals import mean_interval
from tlfeat.evaluate.leaks import LeakedImages
from tlfeat.report.charts import Chart, Mark, percent_axis, tick_axis
from tlfeat.report.finding import Finding, about, p_text, points, remarks
from tlfeat.studies.adapt import SIGNIFICANCE, Adaptation, Line
from tlfeat.studies.adapt_keras import NETWORKS
from tlfeat.studies.adapt_labels import worth_in_labels
from tlfeat.text import counted, interval_text, percent, seconds


def sentences(found: Adaptation) -> list[str]:
    """Return the answer in words."""
    line, best, before = found.lines[found.chosen], found.lines[found.best], found.lines[0]
    sources = ", ".join(found.sources)
    if not found.is_tested_on_target:
        return [
            f"From {sources} to {found.target}: {line.method.name}, chosen without a label of {found.target}. Whether "
            f"that helped is not known: no image of {found.target} has a label to test on. Held-out images of the "
            f"sources, each from its own domain: {percent(line.accuracy)} are right (95 % interval "
            f"{interval_text(line.ci95)}), {percent(before.accuracy)} with {found.head} as it is."
        ]
    told = [
        f"From {sources} to {found.target}: {line.method.name}, chosen without a label of {found.target}, is right on "
        f"{percent(line.accuracy)} of {counted(found.n_test, 'test image')} (95 % interval "
        f"{interval_text(line.ci95)}); {found.head} of the sources alone on {percent(before.accuracy)}."
    ]
    if found.chosen == 0:
        told.append("No method promised more than the head of the sources as it is: adapting is not worth it here.")
    else:
        told.append(f"{verdict(found)} ({difference_text(line)}).")
    if found.best != found.chosen:
        told.append(
            f"Best in hindsight is {best.method.name} with {percent(best.accuracy)}: the highest of "
            f"{len(found.lines)} looks at the same test images, which flatters it, and nobody could have chosen it "
            f"without labels."
        )
    return [*told, *_worth(found)]


def _worth(found: Adaptation) -> list[str]:
    """Say what labels of the target would bring, and what adapting is worth in them."""
    if not found.labelled:
        return []
    accuracy = found.lines[found.chosen].accuracy
    told = [
        f"Or label {one.count} a class of {found.target}: {_mean(one.target_only)} from these alone, {_mean(one.both)} "
        f"with the sources."
        for one in found.labelled
    ]
    worth = worth_in_labels(found.labelled, accuracy)
    most = found.labelled[-1].count
    if worth is None:
        return told
    amount = "fewer than" if not worth else "more than" if worth == float("inf") else "about"
    number = found.labelled[0].count if not worth else most if worth == float("inf") else max(1, round(worth))
    return [
        f"Without a label, {percent(accuracy)} is what {amount} {counted(number, 'label')} a class of {found.target} "
        f"alone would give.",
        *told,
    ]


def _mean(accuracies: list[float]) -> str:
    low, high = mean_interval(accuracies)
    return f"{percent(float(np.mean(accuracies)))} ({100 * low:.1f} to {100 * high:.1f})"


def verdict(found: Adaptation) -> str:
    """Say whether the chosen method helped, in a few words."""
    return {
        "yes": "Adapting helped",
        "no": "Adapting did not help: it made things worse",
        "within noise": "Adapting did not help for certain: the difference is within the noise of so few test images",
    }[found.helped]


def difference_text(line: Line) -> str:
    """Return the difference to source only with its interval and the p-value of this one method."""
    low, high = map(points, line.difference_ci95)
    return f"{points(line.difference)} points, 95 % interval {low} to {high}, {p_text(line.p_alone)}"


def adaptation_finding(found: Adaptation) -> Finding:
    """Return words, chart, table and records of an adaptation."""
    return Finding(
        name=f"adapt-{found.target}",
        title=f"{found.cache.stem}: from {', '.join(found.sources)} to {found.target}",
        sentences=sentences(found),
        chart=_chart(found),
        headings=("method", "test", "95 % interval", "to none", "95 % interval ", "p", "there and back", "time"),
        droppable=("time", "95 % interval ", "95 % interval", "p"),
        rows=[_row(found, i) for i in range(len(found.lines))],
        legend=_legend(found),
        records=[
            {**line.to_record(), "is_chosen": i == found.chosen, "is_best_in_hindsight": i == found.best}
            for i, line in enumerate(found.lines)
        ],
        about=_about(found),
        chosen_row=found.chosen,
    )


def _row(found: Adaptation, i: int) -> tuple[str, ...]:
    line = found.lines[i]
    is_baseline = i == 0
    low, high = line.difference_ci95
    return (
        f"{line.method.name}{' *' if i == found.chosen else ''}",
        percent(line.accuracy),
        interval_text(line.ci95),
        "" if is_baseline else points(line.difference),
        "" if is_baseline else f"{points(low)} to {points(high)}",
        "" if is_baseline else p_text(line.p_value).removeprefix("p "),
        "–" if line.circular is None else percent(line.circular),
        seconds(line.spent_s),
    )


def _chart(found: Adaptation) -> Chart:
    marks = [
        Mark(
            i,
            line.accuracy,
            f"{line.method.name}: {percent(line.accuracy)} of the test images",
            low=line.ci95[0],
            high=line.ci95[1],
            is_ringed=i == found.chosen,
        )
        for i, line in enumerate(found.lines)
    ]
    return Chart(
        f"Accuracy on {found.target}" if found.is_tested_on_target else "Accuracy on held-out images of the sources",
        tick_axis("method", [(i, line.method.name) for i, line in enumerate(found.lines)]),
        percent_axis("accuracy", [end for line in found.lines for end in line.ci95]),
        marks,
        width=760,
        height=380,
    )


def _legend(found: Adaptation) -> list[str]:
    told = [
        "*: chosen by the accuracy there and back: the target is named, and a head of these names has to find the "
        "labels of the sources again. It takes no label of the target, and is no estimate of the accuracy there. Where "
        "the target seems to have another mix of classes, self-training takes the same share of each.",
        *_of_those_not_chosen(found),
        f"{counted(found.n_source, 'image')} of {', '.join(found.sources)} with labels, "
        f"{counted(found.n_adapt, 'image')} of {found.target} without; the test images are others and were seen once.",
        f"To none: percentage points to the head of the sources as it is, on the same test images; p below "
        f"{SIGNIFICANCE:g} tells them apart (McNemar; in the table with Holm's correction, "
        "as somebody may look for the best; above for the chosen method alone).",
        "Times are wall seconds on cached rows: fit, and the way there and back.",
        *(
            [
                f"Labels: means of {len(found.labelled[0].both)} random draws among the images that were adapted to, "
                f"with 95 % t-intervals over draws; with the sources means that both sides count the same."
            ]
            if found.labelled
            else []
        ),
    ]
    leaks = _leak_sentence(found.leaks)
    return [
        *told,
        *_network_sentences(found),
        *([leaks] if leaks else []),
        *(
            f"{line.method.name}: {line.method.what} ({line.method.source})"
            for line in found.lines
            if line.method.source
        ),
        *remarks(found, "not run"),
    ]


def _network_sentences(found: Adaptation) -> list[str]:
    """Say what the rows of networks are, where there are some."""
    names = [line.method.name for line in found.lines if line.method in NETWORKS]
    trained = [line.method.name for line in found.lines if line.circular is None]
    labelled = [line.method for line in found.lines if line.method.n_labelled]
    told = []
    if names:
        told.append(
            f"Networks ({', '.join(names)}): their times have embedding and training in them; what an earlier run had "
            f"embedded with such a network is not embedded again."
        )
    if trained:
        told.append(
            f"–: {' and '.join(trained)} cannot be taken there and back, and are never chosen. They are saved as "
            f"models, as fit-keras does it: tlfeat models."
        )
    told += [
        f"{method.name} knows {method.n_labelled} labels a class of {found.target}, or as many as there were; no other "
        f"row of the table does, and it is not counted for the best in hindsight."
        for method in labelled
    ]
    return told


def _of_those_not_chosen(found: Adaptation) -> list[str]:
    networks = {method.name for method in NETWORKS}
    shown = [m.name for m in (line.method for line in found.lines) if not m.is_choosable and m.name not in networks]
    if not shown:
        return []
    return [
        f"{', '.join(shown)}: shown, never chosen. They match how rows spread both ways, so that wrong names come back "
        f"right, the more so where the target has another mix of classes."
    ]


def _leak_sentence(leaks: LeakedImages | None) -> str:
    if leaks is None or not leaks.images:
        return ""
    return (
        f"LEAK: {counted(len(leaks.images), 'test image')} show a picture of the sources or one that is adapted to, "
        f"and count in no score. tlfeat audit shows them."
    )


def _about(found: Adaptation) -> dict[str, Any]:
    return about(
        found,
        layers=found.layers,
        head=found.head,
        sources=found.sources,
        target=found.target,
        n_source=found.n_source,
        n_adapt=found.n_adapt,
        n_test=found.n_test,
        chosen=found.lines[found.chosen].method.name,
        best_in_hindsight=found.lines[found.best].method.name,
        helped=found.helped,
        estimated_priors=found.priors,
        labelled=[one.to_record() for one in found.labelled],
        worth_in_labels_a_class=worth_in_labels(found.labelled, found.lines[found.chosen].accuracy),
        notes=found.notes,
    )
