"""What a person sees."""

import logging

from robust_train.progress import describe, show

RECORD = {"kind": "window", "epoch": 1, "update": 20, "lr": 0.001, "loss": 0.5, "images_per_second": 812.3}


def test_every_record_is_a_line_of_the_log(caplog, capsys):
    caplog.set_level(logging.INFO, "robust_train")
    with show("name", 100, 0, visible=False) as take:
        take(RECORD)
    assert caplog.messages == ["epoch 1, update 20: lr 0.001, loss 0.5, images per second 812.3"]
    assert capsys.readouterr() == ("", "")
    assert describe({"kind": "epoch", "epoch": 0, "update": 3}) == "epoch 0, update 3: "


def test_the_bar_shows_updates_and_speed_on_the_error_stream(capsys):
    with show("name", 100, 10, visible=True) as take:
        take(RECORD)
        take({"kind": "epoch", "epoch": 1, "update": 21})
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "21/100" in captured.err
    assert "812 images/s" in captured.err


def test_without_a_terminal_there_is_no_bar(capsys):
    with show("name", 100, 0, visible=None) as take:
        take(RECORD)
    assert "100" not in capsys.readouterr().err
