"""The command line as a user meets it: in a process of its own for exit codes, in this one for the rest."""

import io
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from rich.console import Console

import lqo_mor as lqo
from lqo_mor.cli.main import main
from lqo_mor.cli.tables import model_table

DATA = files("lqo_mor") / "data"


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "digits.safetensors"
    shutil.copy(str(DATA / "demo_digits.safetensors"), path)
    return path


@pytest.fixture
def sequences(tmp_path):
    with np.load(str(DATA / "demo_digits.npz")) as file:
        path = tmp_path / "digits.npz"
        np.savez(path, inputs=file["inputs"][:60], labels=file["labels"][:60])
    return path


def fails(capsys, *arguments):
    """The one line on standard error of a command that must end with exit code 1."""
    assert main([str(a) for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("lqo-mor: error: ")
    assert "Traceback" not in err
    return lines[0]


def test_inspect_tells_the_format_and_the_true_number_of_parameters(checkpoint, capsys):
    assert main(["inspect", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    from safetensors.numpy import load_file

    assert "format s4d, 3 layers" in out
    assert f"{sum(a.size for a in load_file(checkpoint).values()):,}" in out


def test_compress_and_compare(checkpoint, sequences, tmp_path, capsys):
    small = tmp_path / "small.safetensors"
    before = checkpoint.read_bytes()
    assert main(["compress", str(checkpoint), "-o", str(small), "--state-size", "8", "--horizon", "64"]) == 0
    out = capsys.readouterr().out
    assert "64 → 8" in out
    assert "33,706 → 17,578" in out
    assert checkpoint.read_bytes() == before
    model = lqo.load_checkpoint(small)
    assert [block.state_size for block in model.blocks] == [8, 8, 8]
    assert main(["compare", str(checkpoint), str(small), "--inputs", str(sequences)]) == 0
    out = capsys.readouterr().out
    with np.load(sequences) as file:
        accuracy = np.mean(model(file["inputs"]).argmax(-1) == file["labels"])
    assert "accuracy of the second" in out
    assert f"{accuracy:.2%}" in out


def test_a_model_equals_itself_on_random_inputs(checkpoint, capsys):
    assert main(["compare", str(checkpoint), str(checkpoint), "--steps", "20"]) == 0
    assert "0.000e+00" in capsys.readouterr().out


@pytest.mark.parametrize("keep", ["0.5"])
def test_keep_is_a_fraction_of_the_states(checkpoint, tmp_path, keep, capsys):
    assert main(["compress", str(checkpoint), "-o", str(tmp_path / "o.npz"), "--keep", keep, "--method", "modal"]) == 0
    assert "64 → 32" in capsys.readouterr().out


def test_an_existing_output_is_refused_and_untouched(checkpoint, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    assert "exists already" in fails(capsys, "compress", checkpoint, "-o", out, "--state-size", 8)
    assert out.read_text() == "precious"
    assert "exists already" in fails(capsys, "compress", checkpoint, "-o", checkpoint, "--state-size", 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--state-size", "64"], "not below the 64 states"),
        (["--state-size", "7"], "not a positive even integer"),
        (["--state-size", "0"], "not a positive even integer"),
        (["--keep", "1.5"], "between 0 and 1"),
        (["--keep", "nan"], "between 0 and 1"),
        (["--state-size", "8", "--horizon", "0"], "positive integer number of samples"),
        (["--state-size", "8", "--format", "lqo"], "missing"),
        (["--state-size", "8", "--format", "nonsense"], "is unknown, expected one of"),
    ],
)
def test_bad_budgets_end_in_one_line_and_leave_nothing(checkpoint, tmp_path, capsys, arguments, message):
    out = tmp_path / "o.safetensors"
    assert message in fails(capsys, "compress", checkpoint, "-o", out, *arguments)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.safetensors"]


def test_bad_output_paths(checkpoint, tmp_path, capsys):
    assert "does not exist" in fails(capsys, "compress", checkpoint, "-o", tmp_path / "no" / "o.npz", "--state-size", 8)
    assert ".xyz" in fails(capsys, "compress", checkpoint, "-o", tmp_path / "o.xyz", "--state-size", 8)
    assert "directory" in fails(capsys, "compress", checkpoint, "-o", tmp_path, "--state-size", 8)


def test_bad_files(tmp_path, checkpoint, capsys):
    assert "does not exist" in fails(capsys, "inspect", tmp_path / "nothing.pth")
    text = tmp_path / "notes.pth"
    text.write_text("not a checkpoint")
    assert "notes.pth" in fails(capsys, "inspect", text)
    half = tmp_path / "half.safetensors"
    half.write_bytes(checkpoint.read_bytes()[:5000])
    assert "half.safetensors" in fails(capsys, "inspect", half)


def test_bad_inputs_of_compare(checkpoint, tmp_path, capsys):
    wrong = tmp_path / "x.npz"
    np.savez(wrong, x=np.zeros((2, 3, 1)))
    assert "no array named inputs" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", wrong)
    np.savez(wrong, inputs=np.zeros((2, 3, 5)))
    assert "(2, 3, 5)" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", wrong)
    np.savez(wrong, inputs=np.full((2, 3, 1), np.nan))
    assert "finite" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", wrong)
    np.savez(wrong, inputs=np.zeros((2, 3, 1)), labels=np.zeros(3))
    assert "labels" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", wrong)
    assert "steps" in fails(capsys, "compare", checkpoint, checkpoint, "--steps", 0)


def test_a_process_ends_with_exit_code_1_and_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lqo_mor", "inspect", str(tmp_path / "none.pth")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("lqo-mor: error: ")
    assert "Traceback" not in done.stderr


def test_the_demo_shows_accuracy_before_and_after(capsys):
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    accuracy = {}
    for line in out.splitlines():
        words = line.split()
        if words and words[0].isdigit() and words[1] in ("full", "modal", "balanced", "optimal"):
            percentages = [float(word.rstrip("%")) for word in words if word.endswith("%")]
            accuracy[words[1], words[0]] = percentages[-2] if len(percentages) > 1 else percentages[0]
    assert accuracy["full", "64"] == 98.4
    for size in ("16", "8"):  # what a user is shown: the default method keeps at least what the baselines keep
        assert accuracy["optimal", size] >= max(accuracy["modal", size], accuracy["balanced", size]) - 0.5
        assert accuracy["optimal", size] >= 97.0


def test_the_help_mentions_all_commands(capsys):
    assert main([]) == 2
    lines = capsys.readouterr().out.splitlines()
    for command in ("inspect", "compress", "compare", "demo", "bench"):
        assert any(line.split()[:1] == [command] for line in lines)


def test_more_bad_inputs_of_compare(checkpoint, sequences, tmp_path, capsys):
    assert "seed" in fails(capsys, "compare", checkpoint, checkpoint, "--seed", -1)
    assert "fewer steps" in fails(capsys, "compare", checkpoint, checkpoint, "--steps", 10**20)
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 1)))
    assert "single array" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", tmp_path / "x.npy")
    sequences.write_bytes(sequences.read_bytes()[:-300])
    assert "damaged" in fails(capsys, "compare", checkpoint, checkpoint, "--inputs", sequences)


@pytest.mark.parametrize("name", ["o[/a].npz", "[bold]o.npz", "o\\.npz", ":boom:.npz", "o;ls $HOME.npz"])
def test_names_are_printed_as_they_are(checkpoint, tmp_path, capsys, name):
    out = tmp_path / name
    out.parent.mkdir(exist_ok=True)
    arguments = ["--keep", "0.25", "--method", "modal"]
    assert main(["compress", str(checkpoint), "-o", str(out), *arguments]) == 0
    printed = capsys.readouterr().out
    assert f"written to {out}: " in printed
    assert f"next: lqo-mor compare {shlex.join([str(checkpoint), str(out)])} --inputs" in printed
    assert main(["inspect", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out.name}: format s4d")
    assert main(["compare", str(checkpoint), str(out), "--steps", "5"]) == 0
    assert out.name in capsys.readouterr().out


def test_layer_names_are_printed_as_they_are(checkpoint):
    model = lqo.load_checkpoint(checkpoint)
    model = replace(model, blocks=tuple(replace(block, name=f"[/{block.name}]") for block in model.blocks))
    console = Console(width=120, file=io.StringIO())
    console.print(model_table(model))
    assert "[/s4_layers.0]" in console.file.getvalue()


def test_compression_layer_by_layer(checkpoint, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    options = ["--state-size", "8", "--layer-by-layer", "--method", "balanced"]
    assert main(["compress", str(checkpoint), "-o", str(out), *options]) == 0
    assert "6,240 → 864" in capsys.readouterr().out
    assert lqo.load_checkpoint(out).blocks[0].state_size == 8
    message = fails(capsys, "compress", checkpoint, "-o", tmp_path / "o.safetensors", "--max-error", "0.1", "--layer-by-layer")
    assert "--max-error needs the whole model" in message


def test_a_bad_output_is_refused_before_the_work(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lqo_mor.cli.compress.load", lambda *args: pytest.fail("the checkpoint was read"))
    for name, words in [("out.bin", "suffix"), ("out", "suffix"), ("n" * 300 + ".npz", "too long")]:
        assert words in fails(capsys, "compress", checkpoint, "-o", tmp_path / name, "--state-size", 8)
    monkeypatch.setattr("os.access", lambda *args, **kwargs: False)
    assert "no permission" in fails(capsys, "compress", checkpoint, "-o", tmp_path / "o.npz", "--state-size", 8)


def test_models_of_other_pooling_cannot_be_compared(tmp_path, sequences, capsys):
    pytest.importorskip("torch")
    sizes = {"n_features": 1, "n_outputs": 3, "width": 4, "n_layers": 1, "n_slots": 2}
    mean, every = tmp_path / "mean.npz", tmp_path / "every.npz"
    lqo.torch.LQODeepSSM(**sizes).save(mean)
    lqo.torch.LQODeepSSM(**sizes, pooling=None).save(every)
    assert "3 outputs per time step" in fails(capsys, "compare", mean, every)
    assert main(["compare", str(every), str(every), "--inputs", str(sequences)]) == 0
    out, err = capsys.readouterr()
    assert "accuracy" not in out
    assert "warning: the labels, of shape (60,), are not used" in err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
@pytest.mark.parametrize("when", ["before", "while"])
def test_a_reader_that_stops_early_is_no_error(checkpoint, when):
    command = [sys.executable, "-m", "lqo_mor", "inspect", str(checkpoint)]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if when == "while":
        done.stdout.read(1)
    done.stdout.close()
    assert done.stderr.read() == ""
    assert done.wait() == 0
    done.stderr.close()


def test_a_terminal_without_our_signs_gets_others(checkpoint, tmp_path):
    command = [sys.executable, "-m", "lqo_mor", "compress", str(checkpoint), "-o", str(tmp_path / "o.npz"), "--state-size", "8"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*command, "--method", "modal"], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "64 ? 8" in done.stdout


def test_compress_with_calibration_inputs(checkpoint, sequences, tmp_path, capsys):
    even, split = tmp_path / "even.safetensors", tmp_path / "split.safetensors"
    command = ["compress", str(checkpoint), "--state-size", "4", "--calibration", str(sequences)]
    assert main([*command, "-o", str(even)]) == 0
    out = capsys.readouterr().out
    assert "64 → 4" in out
    assert "predicted" in out
    assert main([*command, "-o", str(split), "--split"]) == 0
    capsys.readouterr()
    assert lqo.load_checkpoint(even).source.format == "s4d"
    assert lqo.load_checkpoint(split).source.format == "ragged"
    with np.load(sequences) as file:
        inputs = file["inputs"]
    full, white = lqo.load_checkpoint(checkpoint), lqo.compress(lqo.load_checkpoint(checkpoint), state_size=4).model
    errors = [np.linalg.norm(m(inputs) - full(inputs)) for m in (lqo.load_checkpoint(split), lqo.load_checkpoint(even), white)]
    assert errors == sorted(errors)
    assert errors[0] < 0.5 * errors[2]


def test_compress_to_an_error(checkpoint, sequences, tmp_path, capsys):
    pytest.importorskip("matplotlib")  # the report
    small = tmp_path / "small.safetensors"
    command = ["compress", str(checkpoint), "-o", str(small), "--max-error", "0.1", "--calibration", str(sequences), "--split"]
    assert main([*command, "--report", str(tmp_path / "page.html")]) == 0
    assert "</html>" in (tmp_path / "page.html").read_text()
    with np.load(sequences) as file:
        inputs = file["inputs"]
    full, reduced = lqo.load_checkpoint(checkpoint)(inputs), lqo.load_checkpoint(small)(inputs)
    assert np.linalg.norm(reduced - full) <= 0.101 * np.linalg.norm(full)


@pytest.mark.parametrize("arguments", [["--split", "--state-size", "4"], ["--max-error", "0.1"]])
def test_what_needs_calibration_inputs(checkpoint, tmp_path, capsys, arguments):
    assert "calibration" in fails(capsys, "compress", checkpoint, "-o", tmp_path / "small.safetensors", *arguments)


def test_a_split_over_layers_that_are_single_systems(tmp_path):
    pytest.importorskip("matplotlib")  # the report
    inputs = np.random.default_rng(0).integers(1, 100, (4, 32))
    np.savez(tmp_path / "x.npz", inputs=inputs)
    full, small = DATA / "imdb-small.safetensors", tmp_path / "small.safetensors"
    command = ["compress", str(full), "-o", str(small), "--state-size", "8", "--split", "--calibration", str(tmp_path / "x.npz")]
    assert main([*command, "--report", str(tmp_path / "page.html")]) == 0
    assert "</html>" in (tmp_path / "page.html").read_text()
    sizes = [block.state_size for block in lqo.load_checkpoint(small).blocks]
    assert sum(sizes) <= 32
    assert len(set(sizes)) > 1
