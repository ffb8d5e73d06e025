"""What people answered, from the files in which it is published."""

import csv
import json
from itertools import combinations

import pytest
from robust_bench.datasets.human_responses import COLUMNS, human_responses, read_responses, trials
from robust_bench.metrics import error_consistency, expected_consistency, observed_consistency

HEADER = ",".join(COLUMNS)
ROWS = [
    "subject-01,1,1,1.0536,knife,knife,c30,0001_cop_s01_c30_knife_10_n03041632_7380.png",
    "subject-01,1,2,0.8254,oven,bicycle,c100,0002_cop_s01_c100_bicycle_10_n03792782_5966.png",
    "subject-01,2,3,NaN,na,bird,c01,0003_cop_s01_c01_bird_10_n01601694_10802.png",
]


def write(file, *rows, header=HEADER):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return file


def test_reads_every_column(tmp_path):
    knife, bicycle, bird = read_responses(write(tmp_path / "a.csv", *ROWS))
    assert (knife.observer, knife.session, knife.trial, knife.seconds) == ("subject-01", 1, 1, 1.0536)
    assert (knife.answer, knife.category, knife.condition, knife.stimulus) == (
        "knife",
        "knife",
        "c30",
        "n03041632_7380",
    )
    assert (bicycle.answer, bicycle.category, bicycle.right) == ("oven", "bicycle", False)
    assert (bird.session, bird.seconds, bird.answer, bird.right) == (2, None, None, False)


def test_columns_in_capitals_in_another_order_and_with_more_beside_them(tmp_path):
    rows = [f"{row},x" for row in ROWS]
    header = HEADER.replace("session", "Session") + ",note"
    plain = read_responses(write(tmp_path / "a.csv", *ROWS))
    assert read_responses(write(tmp_path / "b.csv", *rows, header=header)) == plain
    turned = [",".join(reversed(row.split(","))) for row in ROWS]
    file = write(tmp_path / "c.csv", *turned, header=",".join(reversed(COLUMNS)))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_responses(file) == plain


def test_people_are_told_from_models(tmp_path):
    write(tmp_path / "contrast_subject-01_session_1.csv", *ROWS[:2])
    write(tmp_path / "contrast_subject-01_session_2.csv", ROWS[2])
    write(tmp_path / "contrast_subject-02_session_1.csv", ROWS[0].replace("subject-01", "subject-02"))
    write(tmp_path / "contrast_resnet50_session-1.csv", "resnet50,1,1,NaN,not a class,knife,c30,x.png")
    write(tmp_path / "contrast_empty.csv")
    (tmp_path / "notes.txt").write_text("hello")
    found = human_responses(tmp_path)
    assert [each.observer for each in found] == ["subject-01"] * 3 + ["subject-02"]
    assert trials(found) == {
        "subject-01": {
            "c30": {"n03041632_7380": True},
            "c100": {"n03792782_5966": False},
            "c01": {"n01601694_10802": False},
        },
        "subject-02": {"c30": {"n03041632_7380": True}},
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ROWS[0].replace("knife,knife", "sofa,knife"),
            r"line 3: object_response is 'sofa', expected one of airplane, .*na",
        ),
        (ROWS[0].replace("knife,knife", "knife,na"), r"line 3: category is 'na', expected one of airplane, "),
        (ROWS[0].replace("1.0536", "soon"), "line 3: expected whole numbers .*seconds or NaN, got '1', '1' and 'soon'"),
        (ROWS[0].replace(",1,1,", ",1,first,"), "line 3: .* got '1', 'first' and '1.0536'"),
        (ROWS[0].rpartition(",")[0], "line 3: 7 values for 8 columns"),
        (ROWS[0].rpartition(",")[0] + ",", "line 3: subj and imagename must not be empty"),
    ],
)
def test_a_row_that_cannot_be_names_file_and_line(tmp_path, row, message):
    with pytest.raises(ValueError, match=r"bad\.csv, " + message):
        read_responses(write(tmp_path / "bad.csv", ROWS[1], row))


def test_a_file_of_something_else_is_refused(tmp_path):
    file = write(tmp_path / "bad.csv", header="subj,session,rt,category,condition,imagename")
    with pytest.raises(ValueError, match=r"bad\.csv, line 1: no column trial, object_response: expected subj,session,"):
        read_responses(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"bad\.csv, line 1: no column subj, .*got nothing"):
        read_responses(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bad\.csv cannot be read as a CSV file in UTF-8"):
        read_responses(file)
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.csv of answers"):
        read_responses(tmp_path / "none.csv")


def test_a_picture_seen_twice_names_both_places(tmp_path):
    write(tmp_path / "a.csv", *ROWS)
    again = ROWS[0].replace("0001_cop", "0099_cop")
    write(tmp_path / "b.csv", again.replace("c30", "c50"), again)
    with pytest.raises(ValueError, match=r"b\.csv, line 3: subject-01 has .*'n03041632_7380' .*a\.csv, line 2"):
        human_responses(tmp_path)


def test_a_folder_without_people_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere of people's answers"):
        human_responses(tmp_path / "nowhere")
    write(tmp_path / "contrast_resnet50_session-1.csv", ROWS[0].replace("subject-01", "resnet50"))
    with pytest.raises(ValueError, match=r"no answers of people in .*begins with 'subject'"):
        human_responses(tmp_path)


@pytest.mark.shared_data
def test_the_published_answers_to_edges_have_the_published_consistencies(shared, tmp_path):
    """The stored table, written as the files of one observer each, trials in another order for everybody."""
    with (shared / "metrics" / "edge_responses.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    observers = [name for name in table[0] if name not in ("stim", "category")]
    for shift, observer in enumerate(observers):
        turned = table[7 * shift :] + table[: 7 * shift]
        rows = [
            f"{observer},1,{number},0.5,{row[observer]},{row['category']},0,"
            f"{number:04d}_edg_s{shift:02d}_0_{row['category']}_00_{row['stim']}.png"
            for number, row in enumerate(turned, start=1)
        ]
        write(tmp_path / f"edge_{observer}_session_1.csv", *rows)
    people = trials(human_responses(tmp_path))
    assert list(people) == [f"subject-{number:02d}" for number in range(1, 11)]
    everybody = people | {
        name: trials(read_responses(tmp_path / f"edge_{name}_session_1.csv"))[name] for name in observers[10:]
    }
    expected = json.loads((shared / "metrics" / "error_consistency_expected.json").read_text())["edge"]["pairs"]
    assert len(expected) == len(list(combinations(observers, 2)))
    for pair, values in expected.items():
        one, other = (everybody[name]["0"] for name in pair.split("|"))
        measures = (error_consistency, observed_consistency, expected_consistency)
        assert [measure(one, other) for measure in measures] == pytest.approx(values, abs=1e-6)
