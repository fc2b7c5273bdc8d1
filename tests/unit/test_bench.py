"""The benchmarks' frame: how benchmarks are found, shown and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import BenchmarkResult, Figures, Goal, Options
from bench.__main__ import find_benchmarks, main
from bench.rle import Case, measure

RESULT = BenchmarkResult(
    "Clocks", ("clock", "ticks"), (("wall", 1.23456), ("sand", 7), ("sun", 5359.88)), {"ticks": [1, 7]}
)


@pytest.fixture
def run_bench(monkeypatch: pytest.MonkeyPatch):
    """The command line over one benchmark `clocks` that gives the result it is told to give."""

    class Clocks:
        result = RESULT
        seen: Options

        def run(self, options: Options) -> BenchmarkResult:
            self.seen = options
            return self.result

    clocks = Clocks()
    monkeypatch.setattr("bench.__main__.find_benchmarks", lambda: {"clocks": "How clocks tick."})
    monkeypatch.setattr("bench.__main__.importlib.import_module", lambda name: clocks)

    def invoke(*arguments: str, result: BenchmarkResult = RESULT):
        clocks.result = result
        return CliRunner().invoke(main, arguments), clocks

    return invoke


def test_a_module_with_a_run_function_is_a_benchmark_and_others_are_not() -> None:
    found = find_benchmarks()
    assert "rle" in found
    assert "annotator" not in found
    assert "__main__" not in found


def test_the_table_shows_three_digits_of_a_float_or_all_before_the_point(run_bench) -> None:
    outcome, _ = run_bench("clocks")
    assert outcome.exit_code == 0, outcome.output
    assert "1.23 " in outcome.output
    assert "sand" in outcome.output
    assert "5360 " in outcome.output


def test_a_file_gets_every_column_whole(run_bench) -> None:
    names = tuple(f"a long column {number}" for number in range(8))
    outcome, _ = run_bench("clocks", result=BenchmarkResult("Wide", names, (names,), {}))
    assert all(outcome.output.count(name) == 2 for name in names)


def test_an_unknown_name_is_answered_with_the_known_ones(run_bench) -> None:
    outcome, _ = run_bench("clock")
    assert outcome.exit_code == 2
    assert "clocks" in outcome.output


def test_the_list_names_each_benchmark_with_its_summary(run_bench) -> None:
    outcome, _ = run_bench("--list")
    assert outcome.output.split() == ["clocks", "How", "clocks", "tick."]


def test_the_json_file_holds_record_table_and_environment(run_bench, tmp_path: Path) -> None:
    outcome, clocks = run_bench("clocks", "--json", str(tmp_path / "clocks.json"), "--data", str(tmp_path))
    assert outcome.exit_code == 0, outcome.output
    document = json.loads((tmp_path / "clocks.json").read_text())
    assert document["record"] == {"ticks": [1, 7]}
    assert document["rows"] == [["wall", 1.23456], ["sand", 7], ["sun", 5359.88]]
    assert document["environment"]["packages"]["numpy"]
    assert clocks.seen == Options(data=tmp_path, json_path=tmp_path / "clocks.json")


def test_a_missed_goal_is_said_and_gives_exit_status_1(run_bench) -> None:
    missed = BenchmarkResult(
        "Clocks", ("clock",), (), goals=(Goal("ticks: 10 wanted, 7 measured", met=False),)
    )
    outcome, _ = run_bench("clocks", result=missed)
    assert outcome.exit_code == 1
    assert "MISSED ticks: 10 wanted, 7 measured" in outcome.output


def test_further_tables_are_shown_and_recorded(run_bench, tmp_path: Path) -> None:
    dials = Figures("Dials", ("dial", "digits"), (("moon", 4321.0),))
    result = BenchmarkResult("Clocks", ("clock",), (("wall",),), further=(dials,))
    outcome, _ = run_bench("clocks", "--json", str(tmp_path / "clocks.json"), result=result)
    assert "4321 " in outcome.output
    document = json.loads((tmp_path / "clocks.json").read_text())
    assert document["further"] == [
        {"title": "Dials", "columns": ["dial", "digits"], "rows": [["moon", 4321.0]]}
    ]


def test_own_arguments_reach_a_benchmark_that_takes_them_and_no_other(run_bench) -> None:
    outcome, clocks = run_bench("clocks", "--hands", "2")
    assert outcome.exit_code == 2
    assert "clocks takes no --hands 2" in outcome.output
    clocks.TAKES_ARGUMENTS = True
    outcome, _ = run_bench("clocks", "--hands", "2")
    assert outcome.exit_code == 0, outcome.output
    assert clocks.seen.arguments == ("--hands", "2")


@pytest.mark.parametrize("name", ["learner", "domains"])
def test_a_folder_without_sets_is_named_with_what_it_should_hold(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, [name, "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert str(tmp_path) in result.output


def test_the_brush_stream_benchmark_measures_three_codecs_that_agree() -> None:
    found = measure(Case("soft", 64, 1))
    assert found["stream_bytes"] > 7
    assert found["soft_share"] > 0
    assert set(found["encode_ms"]) == {"ours", "sdk", "rust"}
    assert min(*found["encode_ms"].values(), *found["decode_ms"].values()) > 0
