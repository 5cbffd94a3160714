"""The split of an adaptation: what is adapted to, what tests, and a clear line for each kind of bad input."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from made_data import key_of, make_table, photo
from tlfeat.backbones.encoder import PixelEncoder
from tlfeat.cache.store import open_cache
from tlfeat.errors import DataError, UsageError
from tlfeat.evaluate.domain_split import DomainSplit, choose_domains, find_domains, make_domain_split
from tlfeat.extract.extract import extract_rows
from tlfeat.images.image_set import ImageTable
from tlfeat.images.load import load_images

Line = tuple[str, str, str]  # label, domain, key


def lines_of(n: int = 20) -> list[Line]:
    """`n` images of each of two classes in "ct", "mri" and "xray"."""
    names = [(label, domain) for domain in ("ct", "mri", "xray") for label in ("ill", "well") for _ in range(n)]
    return [(label, domain, key_of((domain, i))) for i, (label, domain) in enumerate(names)]


def table_of(lines: Sequence[Line], **columns: Any) -> ImageTable:
    labels, domains, keys = zip(*lines, strict=True)
    return make_table(labels, domains=domains, keys=keys, **columns)


def split_of(lines: Sequence[Line], *, seed: int = 0, **columns: Any) -> DomainSplit:
    return make_domain_split(table_of(lines, **columns), ["ct", "mri"], "xray", seed=seed)


def keys_of_tests(found: DomainSplit) -> set[str]:
    return {found.split.keys[i] for i in found.split.where("test")}


# --- the split --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 8])
def test_half_of_the_target_is_adapted_to_and_the_sources_train(seed: int) -> None:
    found = split_of(lines_of(), seed=seed)
    split = found.split
    assert (split.info.n_train, split.info.n_val, split.info.n_test, len(found.adapt.keys)) == (80, 0, 20, 20)
    domains = {(split.domains[i], split.roles[i]) for i in range(len(split.keys))}
    assert domains == {("ct", "train"), ("mri", "train"), ("xray", "test")}
    every = {key for _, domain, key in lines_of() if domain == "xray"}
    assert keys_of_tests(found) | set(found.adapt.keys) == every and not keys_of_tests(found) & set(found.adapt.keys)
    assert (split.info.seed, found.sources, found.target, split.classes) == (
        seed,
        ["ct", "mri"],
        "xray",
        ["ill", "well"],
    )
    assert split.notes == []


def test_another_seed_tests_on_other_images_and_has_another_digest() -> None:
    one, again, other = split_of(lines_of(), seed=3), split_of(lines_of(), seed=3), split_of(lines_of(), seed=4)
    assert one.split.info.digest == again.split.info.digest != other.split.info.digest
    assert keys_of_tests(one) == keys_of_tests(again) != keys_of_tests(other)


def test_the_order_of_the_table_and_the_names_of_files_do_not_matter() -> None:
    lines = lines_of()
    one = split_of(lines, seed=3)
    random.Random(5).shuffle(lines)
    other = split_of(lines, seed=3, paths=[f"z{hash(key) % 977}/{i}.jpg" for i, (_, _, key) in enumerate(lines)])
    assert (one.split.info.digest, one.split.keys, one.adapt.keys) == (
        other.split.info.digest,
        other.split.keys,
        other.adapt.keys,
    )


def test_labels_of_the_target_have_no_say_in_what_tests() -> None:
    lines = lines_of()
    labels = [label for label, domain, _ in lines if domain == "xray"]
    random.Random(2).shuffle(labels)
    moved = [(labels.pop() if domain == "xray" else label, domain, key) for label, domain, key in lines]
    assert moved != lines
    one, other = split_of(lines, seed=3), split_of(moved, seed=3)
    assert (keys_of_tests(one), one.adapt.keys) == (keys_of_tests(other), other.adapt.keys)
    assert one.split.info.digest != other.split.info.digest  # test images have other labels


def test_labels_of_what_is_adapted_to_change_nothing_but_what_is_hidden() -> None:
    lines = lines_of()
    one = split_of(lines, seed=3)
    adapted = set(one.adapt.keys)
    turned = {"ill": "well", "well": "ill"}
    other = split_of([(turned[name] if key in adapted else name, d, key) for name, d, key in lines], seed=3)
    assert one.split.info.digest == other.split.info.digest and one.adapt.keys == other.adapt.keys
    assert (one.adapt.hidden == 1 - other.adapt.hidden).all()


def test_groups_are_part_of_the_digest_and_the_origin_is_said() -> None:
    """What was kept of an earlier adaptation is not taken where its intervals would be others."""
    given = ["test" if 80 <= i < 90 else "" for i in range(120)]
    one, other = (split_of(lines_of(), splits=given, groups=groups) for groups in ([""] * 120, ["", "", *["g"] * 118]))
    assert one.adapt.keys == other.adapt.keys and one.split.info.digest != other.split.info.digest
    assert (one.split.info.origin, split_of(lines_of()).split.info.origin) == ("given", "seeded")


def test_groups_and_copies_stay_on_one_side() -> None:
    lines = lines_of(30)
    groups = [f"patient {i // 3}" if domain == "xray" else "" for i, (_, domain, _) in enumerate(lines)]
    lines += [(name, domain, key) for name, domain, key in lines if domain == "xray"][:7]  # the same bytes again
    found = split_of(lines, seed=6, groups=[*groups, *[""] * 7])
    side = dict.fromkeys(keys_of_tests(found), "test") | dict.fromkeys(found.adapt.keys, "adapt")
    by_group: dict[str, set[str]] = {}
    for (_, domain, key), group in zip(lines, [*groups, *[""] * 7], strict=True):
        if domain == "xray" and group:
            by_group.setdefault(group, set()).add(side[key])
    assert all(len(sides) == 1 for sides in by_group.values()) and len(by_group) == 20
    assert Counter(side.values())["test"] in range(27, 34)
    assert len(found.adapt.keys) + found.split.info.n_test == 67
    assert not set(found.adapt.keys) & keys_of_tests(found)


def test_images_without_a_label_and_of_classes_beyond_adapt_and_never_test() -> None:
    lines = [("" if i in (80, 81, 82) else "new" if i == 83 else n, d, key) for i, (n, d, key) in enumerate(lines_of())]
    found = split_of(lines, seed=1)
    odd = {lines[i][2] for i in (80, 81, 82, 83)}
    assert odd <= set(found.adapt.keys)
    assert found.split.info.n_test == 18  # half of the 36 that can
    assert sorted(found.adapt.hidden.tolist())[:4] == [-1] * 4
    assert found.split.notes == ["1 image of xray cannot test, as no source has the class: new"]


def test_unlabelled_images_of_a_source_take_no_part() -> None:
    lines = [("" if i < 5 else name, domain, key) for i, (name, domain, key) in enumerate(lines_of())]
    assert split_of(lines).split.info.n_train == 75


def test_domains_that_were_not_asked_for_take_no_part() -> None:
    found = make_domain_split(table_of(lines_of()), ["mri"], "ct", seed=2)
    assert (found.split.info.n_train, found.split.info.n_test, len(found.adapt.keys)) == (40, 20, 20)
    assert set(found.split.domains) == {"mri", "ct"}


def test_given_test_images_of_the_target_test_and_all_its_others_adapt() -> None:
    lines = lines_of()
    given = {90, 91, 100, 119, 3}  # one of them of a source: it trains
    found = split_of(lines, seed=5, splits=["test" if i in given else "" for i in range(120)])
    assert keys_of_tests(found) == {lines[i][2] for i in given - {3}}
    assert len(found.adapt.keys) == 36 and found.split.info.n_train == 80


def test_images_that_failed_take_no_part() -> None:
    found = split_of(lines_of(), status=["failed" if i in (0, 100, 101) else "ok" for i in range(120)])
    assert found.split.info.n_train == 79 and found.split.info.n_test + len(found.adapt.keys) == 38


# --- bad input: one clear line ----------------------------------------------------------------------------------


def test_no_domains_says_where_to_say_them() -> None:
    with pytest.raises(DataError, match=r"have no domains\. .* a column domain in the table, or folders DOMAIN/CLASS/"):
        find_domains(make_table(["a", "b"]))
    with pytest.raises(DataError, match="have no domains"):
        find_domains(table_of(lines_of(1), status=["failed"] * 6))


def test_one_domain_is_nothing_to_adapt_from() -> None:
    with pytest.raises(DataError, match=r"All images are of one domain \(ct\): there is nothing to adapt from"):
        find_domains(table_of(lines_of()[:40]))
    assert find_domains(table_of(lines_of()[::-1])) == ["ct", "mri", "xray"]


@pytest.mark.parametrize(
    ("sources", "target", "expected"),
    [
        (None, "mri", (["ct", "xray"], "mri")),
        (["mri"], "ct", (["mri"], "ct")),
        (["xray", "ct", "xray"], None, (["xray", "ct"], "mri")),
        ([], "ct", (["mri", "xray"], "ct")),
    ],
)
def test_what_is_not_said_of_the_domains_is_what_is_left(
    sources: list[str] | None, target: str | None, expected: tuple[list[str], str]
) -> None:
    assert choose_domains(table_of(lines_of(1)), sources, target) == expected


@pytest.mark.parametrize(
    ("sources", "target", "said"),
    [
        (None, "xrays", "No domain 'xrays'. Did you mean 'xray'?"),
        (["ct", "pet"], "xray", "No domain 'pet'."),
        (["ct", "xray"], "xray", "xray is the target and a source. Leave it out of --source."),
        (None, None, "Say which domain is the new one: --target xray. There are: ct, mri, xray."),
        (["ct"], None, "Say which domain is the new one: --target xray."),
        (["ct", "mri", "xray"], None, "Say which domain is the new one"),
    ],
)
def test_other_names_of_domains_are_refused(sources: list[str] | None, target: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_domains(table_of(lines_of(1)), sources, target)


def test_pending_images_are_embedded_first() -> None:
    with pytest.raises(DataError, match=r"2 of 120 images are not embedded yet\. Run the same tlfeat extract again"):
        split_of(lines_of(), status=["pending"] * 2 + ["ok"] * 118)


def test_sources_of_one_class_teach_nothing() -> None:
    lines = [("ill", domain, key) for _, domain, key in lines_of()]
    with pytest.raises(DataError, match=r"The sources \(ct, mri\) have fewer than two classes .*; found: ill."):
        split_of(lines)
    with pytest.raises(DataError, match="found: none"):
        split_of([("" if domain != "xray" else name, domain, key) for name, domain, key in lines])


def test_a_target_of_three_images_is_too_small_and_one_of_five_is_said_to_be() -> None:
    lines = lines_of()
    with pytest.raises(DataError, match="xray has 3 images: at least 4 are needed, some to adapt to and some to test"):
        split_of(lines[:83])
    found = split_of(lines[:85])
    assert found.split.info.n_test in (2, 3) and len(found.adapt.keys) == 5 - found.split.info.n_test
    n = len(found.adapt.keys)
    assert f"{n} images to adapt to: few, so that what is learned of xray is rough" in found.split.notes


def test_of_a_target_without_labels_all_images_are_adapted_to_and_a_fifth_of_the_sources_tests() -> None:
    lines = [("" if domain == "xray" else name, domain, key) for name, domain, key in lines_of()]
    found, tested = split_of(lines, seed=5), split_of(lines_of(), seed=5)
    split = found.split
    assert (found.is_tested_on_target, tested.is_tested_on_target) == (False, True)
    assert set(found.adapt.keys) == {key for _, domain, key in lines if domain == "xray"}
    assert (found.adapt.hidden == -1).all()
    assert (split.info.n_train, split.info.n_test) == (64, 16)
    assert {split.domains[i] for i in split.where("test")} == {"ct", "mri"}
    assert split.notes[0].startswith("NO TEST: no image of xray has a label")


@pytest.mark.parametrize("columns", [{"splits": ["test"] * 120}, {"groups": ["one"] * 120}], ids=["given", "one group"])
def test_a_target_of_test_images_alone_has_nothing_to_adapt_to(columns: dict[str, list[str]]) -> None:
    with pytest.raises(DataError, match="No image of xray is left to adapt to: all test, as given, or as one group"):
        split_of(lines_of(), **columns)


def test_classes_that_the_target_lacks_or_has_alone_are_said() -> None:
    lines = lines_of()
    lines += [("old", "ct", key_of(("old", i))) for i in range(9)] + [("new", "xray", key_of("n")) for _ in range(1)]
    assert split_of(lines).split.notes == [
        "xray has no image of old: methods that expect every class may go wrong there",
        "1 image of xray cannot test, as no source has the class: new",
    ]


def test_groups_over_domains_are_said() -> None:
    lines = lines_of()
    lines[100] = ("ill", "xray", lines[3][2])  # the bytes of an image of a source
    assert split_of(lines).split.notes == ["in xray and in a source at once: 1 group of images or copies"]


# --- leaks between domains --------------------------------------------------------------------------------------


def test_copies_of_source_pictures_among_the_tests_are_leaks_by_bytes_and_nearly(tmp_path: Path) -> None:
    """The target's test part holds a picture of a source, one changed a little, and a copy of one adapted to."""
    root = tmp_path / "set"
    for d, domain in enumerate(("camera", "phone")):
        for c, label in enumerate("ab"):
            for part in ("train", "test") if domain == "phone" else ("train",):
                (root / part / domain / label).mkdir(parents=True)
                for i in range(5):
                    file = root / part / domain / label / f"{i}.png"
                    photo(1000 * d + 100 * c + i + 50 * (part == "test")).save(file)
    tests = root / "test" / "phone" / "a"
    (tests / "bytes.png").write_bytes((root / "train" / "camera" / "a" / "2.png").read_bytes())
    photo(3).save(tests / "near.jpg", quality=70)  # of camera/a/3
    photo(1001).save(tests / "adapted.jpg", quality=70)  # of phone/a/1, which is adapted to
    path = extract_rows(load_images(root, domains=True), PixelEncoder(), tmp_path / "c.h5").cache
    with open_cache(path) as cache:
        found = make_domain_split(cache.table, ["camera"], "phone", seed=1)
        leaks = found.leaks(cache).images
    assert found.split.info.n_test == 13 and len(found.adapt.keys) == 10
    assert {(leak["test"].rpartition("/")[2], leak["learned"], leak["kind"] == "bytes") for leak in leaks} == {
        ("bytes.png", "train/camera/a/2.png", True),
        ("near.jpg", "train/camera/a/3.png", False),
        ("adapted.jpg", "train/phone/a/1.png", False),
    }
