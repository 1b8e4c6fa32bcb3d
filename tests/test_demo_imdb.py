"""The demonstration that classifies sentences, with and without a terminal."""

import io
import shutil
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
from rich.console import Console

import lqo_mor as lqo
from benchmarks.imdb.data import Reviews
from lqo_mor.cli import demo_imdb
from lqo_mor.cli.demo_imdb import SEPARATOR, tokens, windows
from lqo_mor.cli.main import main

GOOD = "A wonderful film. I loved every minute of it, and the acting is superb."
BAD = "What a waste of time. The worst acting I have ever seen, and a stupid plot."


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def models():
    full = lqo.load_checkpoint(str(files("lqo_mor") / "data" / "imdb.safetensors"))
    return full, lqo.compress(full, state_size=96, method="modal", horizon=1024).model


@pytest.fixture
def quick(models, monkeypatch):
    monkeypatch.setattr(demo_imdb, "_models", lambda console: models)


def run(texts=None, stream=None) -> list[str]:
    console = Console(file=io.StringIO(), width=120, highlight=False, emoji=False)
    demo_imdb.show(console, texts, stream)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_windows_end_with_the_text_and_repeat_it():
    long = "".join(chr(97 + i % 26) for i in range(50))
    got = windows(["abc", long, b"\xff\x00!"], 9)
    assert [bytes(row) for row in got] == [b"c\0abc\0abc", long[-9:].encode(), b"!\0\x7f\1!\0\x7f\1!"]
    texts = ["x", "", "short one", long]
    reviews = Reviews.from_texts(texts, [0, 1, 0, 1])
    np.testing.assert_array_equal(windows(texts, 21), reviews.windows(21))
    random = reviews.windows(21, np.random.default_rng(0))
    assert not np.any(random[3] == SEPARATOR)
    assert bytes(random[3]).decode() in long
    assert np.count_nonzero(random[2] == SEPARATOR) == 2
    assert windows(["\ud800"], 1).shape == (1, 1)  # half a character, as some terminals give


def test_verdicts_and_probabilities_are_those_of_the_model(models):
    window = [*tokens(GOOD), SEPARATOR] * 20
    logits = models[0](np.array([window[:-1][-1024:]]))[0]
    verdicts, probabilities = demo_imdb.classify(models[0], [GOOD, BAD])
    assert list(verdicts) == [1, 0]
    np.testing.assert_allclose(probabilities[0], 1 / (1 + np.exp(logits[0] - logits[1])), rtol=1e-9)


def test_texts_of_the_command_line_before_and_after(capsys, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail("asked"))
    monkeypatch.setattr(demo_imdb, "compress", partial(lqo.compress, method="balanced"))  # quicker
    assert main(["demo", "imdb", "--text", GOOD, "--text", BAD]) == 0
    out = capsys.readouterr().out
    assert "108,866 parameters" in out
    assert "48 states, 21,506 parameters (-80%)" in out
    rows = {line[:20]: line.split() for line in out.splitlines() if "%" in line}
    for text, verdict in ((GOOD, "positive"), (BAD, "negative")):
        assert rows[text[:20]].count(verdict) == 2
    assert demo_imdb.EXAMPLES[0][:20] not in out


def test_a_compressed_model_that_ships_is_taken(models, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    shutil.copy(str(files("lqo_mor") / "data" / demo_imdb.FULL), tmp_path / "data" / demo_imdb.FULL)
    models[1].save(tmp_path / "data" / demo_imdb.SMALL)
    monkeypatch.setattr(demo_imdb, "files", lambda package: tmp_path)
    monkeypatch.setattr(demo_imdb, "compress", lambda *args, **kwargs: pytest.fail("compressed"))
    out = run([GOOD])
    assert any(f"96 states, {models[1].n_parameters:,} parameters" in line for line in out)


def test_without_it_every_layer_is_reduced_by_the_default_method(monkeypatch):
    asked = {}

    def compress(model, **options):
        asked.update(options)
        return lqo.compress(model, method="modal", **options)

    monkeypatch.setattr(demo_imdb, "compress", compress)
    monkeypatch.setattr(demo_imdb, "SMALL", "none.safetensors")
    assert any("without retraining, in" in line for line in run([GOOD]))
    assert (asked["state_size"], asked["horizon"]) == (48, 1024)
    assert "method" not in asked


def test_lines_of_a_pipe(quick):
    stream = io.TextIOWrapper(io.BytesIO(b"\n  \nI [bold]loved[/bold] it \xff\x1b[31m\nawful\n"), encoding="ascii")
    out = run(stream=stream)
    rows = [line for line in out if "%" in line]
    assert len(rows) == len(demo_imdb.EXAMPLES) + 2
    assert rows[-2].startswith("I [bold]loved[/bold] it \ufffd [31m")
    assert rows[-2].split().count("positive") == 2
    assert rows[-1].split().count("negative") == 2
    assert len([line for line in run(stream=io.StringIO("")) if "%" in line]) == len(demo_imdb.EXAMPLES)


@pytest.mark.parametrize("end", ["", EOFError, KeyboardInterrupt])
def test_a_terminal_is_asked_until_the_end(quick, monkeypatch, end):
    answers = iter([GOOD, BAD, end])

    def answer(prompt):
        given = next(answers)
        if not isinstance(given, str):
            raise given
        return given

    monkeypatch.setattr("builtins.input", answer)
    out = run(stream=Terminal())
    assert [line[:20] for line in out if "%" in line][-2:] == [GOOD[:20], BAD[:20]]
    assert next(answers, None) is None


def test_long_words_and_texts_are_shortened():
    assert demo_imdb._shortened("a" * 200) == "a" * 64
    assert demo_imdb._shortened(GOOD + "\n" + BAD).endswith(" ...")
    assert len(demo_imdb._shortened(GOOD + BAD)) <= 64


@pytest.mark.parametrize(
    ("arguments", "message"), [(["imdb", "--text", "  "], "a text is empty"), (["--text", GOOD], "lqo-mor demo imdb --text")]
)
def test_bad_texts(capsys, arguments, message):
    assert main(["demo", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
