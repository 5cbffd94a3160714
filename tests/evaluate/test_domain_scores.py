"""Accuracy by domain: what is counted, its intervals, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from tlfeat.evaluate.domains import accuracy_by_domain, domain_lines, shown_domains
from tlfeat.evaluate.intervals import proportion_interval


def test_each_domain_has_its_number_accuracy_and_interval() -> None:
    domains = ["photo", "", "Haus Süd", "photo", "photo"]
    found = accuracy_by_domain(domains, np.array([True, False, True, True, False]))
    assert [(of["domain"], of["n"], of["accuracy"]) for of in found] == [
        ("", 1, 0.0),
        ("Haus Süd", 1, 1.0),
        ("photo", 3, pytest.approx(2 / 3)),
    ]
    assert found[2]["ci95"] == list(proportion_interval([True, True, False]))


def test_without_domains_there_is_nothing() -> None:
    assert accuracy_by_domain(["", ""], np.array([True, False])) == []
    assert domain_lines([]) == []


def test_intervals_allow_for_groups_within_a_domain_unless_it_is_one_group() -> None:
    right = np.array([True] * 6 + [False] * 6 + [True] * 9 + [False] * 3)
    groups = np.array([0] * 6 + [1] * 6 + [2] * 12)
    two, one = accuracy_by_domain(["a"] * 12 + ["b"] * 12, right, groups)
    alone = proportion_interval(right[:12])
    assert two["ci95"] == list(proportion_interval(right[:12], groups[:12]))
    assert two["ci95"][1] - two["ci95"][0] > alone[1] - alone[0]
    assert one["ci95"] == list(proportion_interval(right[12:]))


def test_lines_are_said_for_two_domains_or_more_and_of_many_for_the_worst() -> None:
    right = np.arange(40) % 40 >= 20
    (alone,) = accuracy_by_domain(["a"] * 40, right)
    assert domain_lines([alone]) == []
    lines = domain_lines(accuracy_by_domain(["", "a\nb"] * 20, right))
    assert lines[0] == "(no domain)  50.0 %  (20 test images, 95 % interval 29.9 to 70.1)"
    assert lines[1].startswith("a\\nb         50.0 %")
    many = accuracy_by_domain([f"camera {i:02}" for i in range(40)], right)
    assert [of["domain"] for of in shown_domains(many)] == [f"camera {i:02}" for i in range(12)]
    assert domain_lines(many)[0] == "camera 00  0.0 %  (1 test image, 95 % interval 0.0 to 79.3)"
    assert domain_lines(many)[12:] == ["and 28 more"]
    large = accuracy_by_domain(["large"] * 20 + [f"camera {i:02}" for i in range(20)], right[::-1])
    assert shown_domains(large)[0]["domain"] == "camera 00"
    poor = accuracy_by_domain(["large"] * 20 + [f"camera {i:02}" for i in range(20)], np.arange(40) % 4 == 0)
    assert shown_domains(poor)[0]["domain"] == "large"  # 25 % of 20 is shown to be poor, 0 % of one is not
