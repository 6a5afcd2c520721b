"""Headlines by experiments/translation: any pairs of an article and its headline."""

import json
import random

import pytest

from experiments.translation.__main__ import main

WHO = "mayor team bank judge farmer pilot king nurse".split()
DOES = "buys sells finds loses paints moves".split()
WHAT = "bridge boat house piano tower horse garden engine".split()
FILLERS = "today again officials report quietly downtown while reportedly".split()
SMALL = """--cell rnn --hidden 32 --embedding 16 --pieces 500 --tokens 256
--dropout 0 --label-smoothing 0""".split()


@pytest.fixture
def pairs(tmp_path):
    """Articles of key words among others, and the key words as headlines."""
    chance, rows = random.Random(0), []
    for _ in range(500):
        keys = [chance.choice(words) for words in (WHO, DOES, WHAT)]
        article = keys.copy()
        for _ in range(4):
            article.insert(chance.randint(0, len(article)), chance.choice(FILLERS))
        rows.append(f"{' '.join(article)}\t{' '.join(keys)}\n")
    path = tmp_path / "headlines.tsv"
    path.write_text("".join(rows))
    return path


def test_headlines_are_learned_from_a_file_of_pairs(pairs, tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--steps", "100", "--learning-rate", "0.02", "--warmup", "10"]
    given = ["train", "--data", str(pairs), "--out", str(out), *SMALL, *options]
    assert main(given) == 0
    found = json.loads((out / "result-test.json").read_text())
    assert found["pairs"] == 25 and found["title"] == "headlines.tsv, test"
    # a word is a piece, so this is the least for who knows all but the article
    blind = (len(WHO) * len(DOES) * len(WHAT)) ** (1 / 4)
    scores = found["scores"]
    assert scores["perplexity"] < 0.5 * blind and scores["exact match"] > 80
    articles = tmp_path / "articles.txt"
    articles.write_text("officials report mayor quietly sells again piano\n")
    capsys.readouterr()
    run = ["translate", "--run", str(out), "--input", str(articles)]
    assert main(run) == 0
    assert capsys.readouterr().out.strip() == "mayor sells piano"
