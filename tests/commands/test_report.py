"""`datafree report`: a report made again with other runs."""

from __future__ import annotations


def test_a_report_of_other_runs_names_replace_which_makes_it(command, here):
    assert command("report teacher --out page.html").code == 0
    refused = command("report teacher student --out page.html")
    assert refused.code == 2
    assert refused.line.endswith(": give --replace to overwrite it, or name another --out")
    assert command("report teacher student --out page.html --replace").code == 0
    assert ">student<" in (here / "page.html").read_text()
    assert "already complete" in command("report teacher student --out page.html").out


def test_a_file_that_is_no_report_is_not_replaced(command, here):
    (here / "page.html").write_text("<!doctype html>\nmine")
    assert "no page of datafree's" in command("report teacher --out page.html --replace").line
    assert (here / "page.html").read_text() == "<!doctype html>\nmine"


