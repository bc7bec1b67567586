"""Promises of names and folders: nothing leads outside, and nobody else's folder is touched."""

from __future__ import annotations

import os

import pytest

from datafree._core.errors import UserError
from datafree._core.files import claim_folder, safe_name
from datafree._core.files.open_file import open_regular


@pytest.mark.parametrize(
    "name", ["a", "A-1_b.safetensors", ".datafree.json", "-x", "console", "com10", "nul-1", "x" * 128]
)
def test_a_plain_name_is_itself(name):
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            "..a",
            "a.",
            "a/b",
            "a\\b",
            "/a",
            "C:",
            "C:a",
            "\\\\host\\a",
            "a\0",
            "a\n",
            "a b",
            " a",
            "é",
            "ａ",
        ),
        *(
            "CON",
            "con.txt",
            "Nul",
            "aux.tar.gz",
            "PRN",
            "com1",
            "LPT9.x",
            "x" * 129,
            "a*",
            "a?",
            "~",
            "$HOME",
            3,
            None,
            b"a",
        ),
    ],
)
def test_a_name_that_is_no_plain_component_anywhere_is_refused(name):
    with pytest.raises(UserError, match="cannot be used"):
        safe_name(name)


def test_a_folder_is_made_and_claimed_again_by_its_kind(tmp_path):
    folder = claim_folder(tmp_path / "a" / "b", kind="images")
    assert (folder / ".datafree.json").read_bytes() == b'{"kind":"images"}\n'
    (folder / "more").write_text("x")
    assert claim_folder(folder, kind="images") == folder
    with pytest.raises(UserError, match="holds 'images'; expected 'record'"):
        claim_folder(folder, kind="record")


def test_an_empty_folder_is_claimed(tmp_path):
    assert os.listdir(claim_folder(tmp_path, kind="images")) == [".datafree.json"]


def test_a_folder_whose_claim_was_killed_is_claimed(tmp_path):
    (tmp_path / "..datafree.json.tmp-1-0123456789abcdef").write_text("")
    claim_folder(tmp_path, kind="images")
    assert (tmp_path / ".datafree.json").exists()


def test_a_folder_that_holds_something_else_is_left_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds 'thesis\.tex'"):
        claim_folder(tmp_path, kind="images")
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("marker", ["", "[]", '{"kind":3}', '{"kind":"a","kind":"images"}', "{}"])
def test_a_damaged_marker_is_refused(tmp_path, marker):
    (tmp_path / ".datafree.json").write_text(marker)
    with pytest.raises(UserError):
        claim_folder(tmp_path, kind="images")


def test_a_link_or_a_file_or_a_bad_path_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    for path in ("link", "dangling", "file", "file/below", "nul\0", "x" * 300):
        with pytest.raises(UserError):
            claim_folder(tmp_path / path, kind="images")
    assert os.listdir(tmp_path / "real") == []
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "link", "real"]


def test_links_of_the_hugging_face_cache_are_followed_and_no_others(tmp_path):
    cache = tmp_path / "models--me--teacher"
    snapshot = cache / "snapshots" / "abc"
    (snapshot / "code").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "1234").write_text("content")
    (tmp_path / "private").write_text("secret")
    (snapshot / "config.json").symlink_to("../../blobs/1234")
    (snapshot / "code" / "net.py").symlink_to("../../../blobs/1234")
    for path in (snapshot / "config.json", snapshot / "code" / "net.py"):
        with open_regular(path) as (file, size):
            assert file.read() == b"content" and size == 7
    (cache / "blobs" / "5678").symlink_to(tmp_path / "private")
    (snapshot / "twice").symlink_to("../../blobs/5678")
    (snapshot / "outside").symlink_to("../../../private")
    (snapshot / "through").symlink_to("../../blobs/../../private")
    (snapshot / "folder").symlink_to("../../blobs")
    (snapshot / "nowhere").symlink_to("../../blobs/none")
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_text("content")
    (tmp_path / "plain").symlink_to("blobs/1234")
    for path in (
        *(snapshot / name for name in ("twice", "outside", "through", "folder", "nowhere")),
        tmp_path / "plain",
    ):
        with pytest.raises(UserError), open_regular(path):
            pass
