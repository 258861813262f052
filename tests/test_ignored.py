"""A .bidsignore leaves out what a .gitignore would, however many lines it has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pathspec import GitIgnoreSpec

from tasks.bids.ignored import Ignored

NAMES = st.sampled_from(["sub-01", "sub-02", "anat", "a.nii.gz", "b", "a", "x y", "ä", "#c", "!d"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINES = st.lists(
    st.one_of(
        PATHS,
        PATHS.map("/{}".format),
        PATHS.map("{}/".format),
        PATHS.map("!{}".format),
        PATHS.map("{} ".format),
        st.tuples(PATHS, st.sampled_from(["*", "**", "?", "/**", "/*", "[ab]", "\\ ", "\\#"])).map("".join),
        st.sampled_from(["", "#", "# a", "/", "//", "a//b", "**/a", "*.gz", "./a/b", "a/../b"]),
    ),
    max_size=6,
)


@given(LINES, PATHS)
def test_whatever_the_lines_a_file_is_left_out_if_git_would_ignore_it(lines: list[str], path: str) -> None:
    assert Ignored(lines).has(path) == GitIgnoreSpec.from_lines(lines).match_file(path)


@pytest.mark.parametrize(
    ("lines", "path", "left_out"),
    [
        (["sub-01/anat/sub-01_T1w.nii.gz"], "sub-01/anat/sub-01_T1w.nii.gz", True),
        (["sub-01/anat/sub-01_T1w.nii.gz"], "sub-01/anat/sub-01_T1w.nii", False),
        (["/sub-01/anat"], "sub-01/anat/sub-01_T1w.nii.gz", True),
        (["sub-01/anat"], "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz", False),
        (["anat"], "sub-01/anat/sub-01_T1w.nii.gz", True),
        (["sub-01/anat", "!sub-01/anat"], "sub-01/anat/sub-01_T1w.nii.gz", False),
        (["sub-01/anat/*_T1w.*"], "sub-01/anat/sub-01_T1w.nii.gz", True),
    ],
)
def test_a_line_names_a_path_a_name_or_a_pattern(lines: list[str], path: str, left_out: bool) -> None:
    assert Ignored(lines).has(path) == left_out
