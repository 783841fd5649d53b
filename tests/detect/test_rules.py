"""Rules in TOML become fresh detectors, or are refused with what would be right."""

from __future__ import annotations

import pytest

from perpwatch.detect.rarity import VolumeRarity
from perpwatch.detect.rules import read_rules
from perpwatch.errors import ConfigurationError


def test_a_rule_makes_fresh_detectors_each_time() -> None:
    rules = read_rules(
        """
        [rules.quiet]
        detector = "rarity"
        risk = 1e-5
        move = 6.0

        [[rules.both]]
        detector = "breakout"
        [[rules.both]]
        detector = "volume_ratio"
        window = 50
        thresholds = {Min1 = 4.0}
        """
    )
    (quiet,) = rules["quiet"]()
    assert isinstance(quiet, VolumeRarity)
    assert quiet.risk == 1e-5
    assert rules["quiet"]()[0] is not quiet
    assert [detector.name for detector in rules["both"]()] == ["breakout", "volume_ratio"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rules", "TOML"),
        ("[other]\nx = 1", "tables named rules.NAME"),
        ("rules = 1", "tables named rules.NAME"),
        ("[rules]\nquiet = 1", "rules.quiet = 1: a table with a detector"),
        ('[rules.a]\ndetector = "magic"', "one of rarity, breakout"),
        ('[rules.a]\ndetector = "rarity"\nrisky = 1', "one of risk, move"),
        ('[rules.a]\ndetector = "rarity"\nrisk = 2.0', "risk must be within"),
        ('[rules.a]\ndetector = "volume_ratio"\nthresholds = {Min2 = 1.0}', "a number for each of Min1"),
        ('[rules.a]\ndetector = "volume_ratio"\nthresholds = 3', "a number for each of Min1"),
        ('[rules.a]\ndetector = "rarity"\nmove = "much"', "rules.a"),
    ],
)
def test_what_is_wrong_is_refused_with_what_would_be_right(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        read_rules(text)
