"""Tests of libs/version."""

import re

from libs.version import CODE_VERSION, version


def test_the_version_is_that_of_the_version_file() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", version())


def test_the_code_version_is_a_positive_number() -> None:
    assert CODE_VERSION >= 1
