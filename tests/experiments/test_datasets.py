"""Loaders and downloads, on real files where they are at hand."""

import functools
import gzip
import hashlib
import http.server
import io
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments import datasets, tables
from experiments.conll import conll, conllu
from experiments.datasets import DATASETS, Dataset
from experiments.frame.errors import InputError
from tests.experiments.helpers import REAL, real

TEXT = "".join(f"line {i} of the file\n" for i in range(20_000)).encode()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


class Cut(Quiet):
    """Promises a whole file and hangs up after a half."""

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        self.wfile.write(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """Serves a folder as the data set `name`, from which downloads then come."""
    servers = []

    def start(folder, name, handler=Quiet, hashes=None):
        handler = functools.partial(handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setitem(DATASETS, name, Dataset("none at all", url, hashes or {}))
        return url

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        datasets.pooch, "os_cache", lambda name: tmp_path / "cache" / name
    )
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "words.txt").write_bytes(TEXT)
    return folder


GOOD = {"words.txt": hashlib.sha256(TEXT).hexdigest()}


def cached(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_download_is_checked_and_kept(serve, served, tmp_path, capsys):
    serve(served, "words", hashes=GOOD)
    path = datasets.fetch("words", "words.txt")
    assert path.read_bytes() == TEXT
    told = capsys.readouterr().err
    assert "words.txt of words" in told and "none at all" in told
    (served / "words.txt").unlink()  # the second time nothing is asked of the server
    assert datasets.fetch("words", "words.txt") == path
    assert capsys.readouterr().err == ""


def test_wrong_hash(serve, served, tmp_path):
    url = serve(served, "words", hashes={"words.txt": "0" * 64})
    with pytest.raises(InputError, match=f"{url}/words.txt: .*sha256 differs"):
        datasets.fetch("words", "words.txt")
    assert not cached(tmp_path)


def test_spoiled_cache_is_downloaded_again(serve, served, tmp_path):
    serve(served, "words", hashes=GOOD)
    path = datasets.fetch("words", "words.txt")
    path.write_bytes(TEXT[:100])
    assert datasets.fetch("words", "words.txt").read_bytes() == TEXT


def test_cut_connection(serve, served, tmp_path):
    url = serve(served, "words", Cut, GOOD)
    with pytest.raises(InputError, match=f"{url}/words.txt: "):
        datasets.fetch("words", "words.txt")
    assert not cached(tmp_path)


def test_absent_and_unreachable(serve, served, tmp_path, monkeypatch):
    url = serve(served, "words", hashes={"others.txt": "0" * 64})
    with pytest.raises(InputError, match=f"{url}/others.txt: the download failed"):
        datasets.fetch("words", "others.txt")
    gone = Dataset("", "http://127.0.0.1:9", {"words.txt": "0" * 64})
    monkeypatch.setitem(DATASETS, "words", gone)
    with pytest.raises(InputError, match="the download failed"):
        datasets.fetch("words", "words.txt")
    assert not cached(tmp_path)


def test_full_disk(serve, served, tmp_path):
    """In a process of its own, whose files may have 64 KiB at most."""
    url = serve(served, "words", hashes=GOOD)
    code = f"""
import resource, signal
from pathlib import Path
from experiments import datasets, tables
from experiments.conll import conll, conllu
from experiments.frame.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
datasets.pooch.os_cache = lambda name: Path({str(tmp_path)!r}) / "cache" / name
datasets.DATASETS["words"] = datasets.Dataset("", {url!r}, {GOOD!r})
try:
    datasets.fetch("words", "words.txt")
except InputError as e:
    print(e)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert "cannot write there: File too large" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert not cached(tmp_path)


def test_unwritable_folder(serve, served, tmp_path):
    serve(served, "words", hashes=GOOD)
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(InputError, match="cannot write there"):
        datasets.fetch("words", "words.txt")


def test_folder_of_the_user(served, tmp_path):
    flat = shutil.copy(served / "words.txt", served / "names.txt")
    assert datasets.fetch("names", "names.txt", served) == flat
    nested = tmp_path / "all" / "names"
    nested.mkdir(parents=True)
    (nested / "names.txt").write_text("emma\n")
    assert (
        datasets.fetch("names", "names.txt", tmp_path / "all") == nested / "names.txt"
    )
    with pytest.raises(InputError, match=r"--data-dir .*: no names.txt of names"):
        datasets.fetch("names", "names.txt", tmp_path)


# the real files


def unpacked(path):
    return datasets.read(path, "latin-1").encode("latin-1")


@real
@pytest.mark.parametrize("name", DATASETS)
def test_real_files_have_the_hashes(name):
    """The addresses' files are those at hand, which may be packed."""
    assert REAL.joinpath(name).is_dir()
    for file, known in DATASETS[name].files.items():
        paths = [REAL / name / f"{file}{end}" for end in ("", ".gz", ".xz")]
        path = next(path for path in paths if path.is_file())
        content = path.read_bytes() if path.name == file else unpacked(path)
        assert hashlib.sha256(content).hexdigest() == known, file


@real
def test_real_downloads(serve, monkeypatch, tmp_path):
    """Every file of Multi30k and the Korean pairs, over HTTP, and read."""
    for name in ("multi30k", "tatoeba_ko", "chatbot_ko"):
        known = DATASETS[name]
        serve(REAL / name, name, hashes=known.files)
        for file in known.files:
            path = datasets.fetch(name, file)
            assert path.read_bytes() == (REAL / name / file).read_bytes()
            assert path.is_relative_to(tmp_path)


def real_file(name, file):
    return datasets.fetch(name, file, REAL)


@real
@pytest.mark.parametrize(
    ("file", "n"), [("train", 29_000), ("val", 1_014), ("test_2016_flickr", 1_000)]
)
def test_multi30k(file, n):
    paths = (real_file("multi30k", f"{file}.{side}.gz") for side in ("de", "en"))
    pairs = tables.parallel(*paths)
    assert len(pairs) == n and pairs[4].place.endswith("line 5")


@real
def test_tables():
    pairs = tables.pairs_of_table(real_file("tatoeba_ko", "kor.txt"), 1, 0)
    assert len(pairs) == 3_798 and pairs[0].target == "Go."
    path = real_file("chatbot_ko", "ChatbotData.csv")
    pairs = tables.pairs_of_table(path, delimiter=",", header=True)
    assert len(pairs) == 11_823 and pairs[0].source == "12시 땡!"
    for part, n, texts in (("train", 150_000, 149_995), ("test", 50_000, 49_997)):
        rows = tables.table(real_file("nsmc", f"ratings_{part}.txt"), 3, header=True,
                          quoted=True)  # fmt: skip
        assert len(rows) == n and {row[2] for row, _ in rows} == {"0", "1"}
        assert sum(bool(row[1]) for row, _ in rows) in range(texts - 2, n)


@real
def test_labels():
    rows = tables.labelled(real_file("sst", "stsa.fine.test"))
    assert len(rows) == 2_210 and {label for _, label in rows} == set("01234")
    rows = tables.labelled(real_file("trec", "TREC.train.all"), "cp1252")
    assert len(rows) == 5_452 and len({label for _, label in rows}) == 6
    # bytes 0x85, which splitlines would take for line ends
    assert len(datasets.lines(real_file("mr", "rt-polarity.neg"), "cp1252")) == 5_331
    assert len(datasets.lines(real_file("names", "names.txt"))) == 32_033


@real
@pytest.mark.parametrize(
    ("name", "file", "sentences", "words"),
    [
        ("ud_en_ewt", "en_ewt-ud-train.conllu", 12_544, 204_577),
        ("ud_en_ewt", "en_ewt-ud-test.conllu", 2_077, 25_094),
        ("ud_ko_gsd", "ko-gsd-ud-dev.conllu", 950, 11_958),
    ],
)
def test_conllu(name, file, sentences, words):
    found = conllu(real_file(name, file))
    assert (len(found), sum(map(len, found))) == (sentences, words)


@real
@pytest.mark.parametrize(
    ("name", "file", "columns", "sentences", "words"),
    [
        ("wnut17", "wnut17train.conll", (0, 1), 3_394, 62_730),
        ("ud_ko_kaist", "kaist.dev.tsv", (0, 1), 2_066, 25_278),
        ("kmou_ner", "ner.dev", (0, -1), 366, 14_077),
        ("kmou_ner", "ner.train", (0, -1), 2_928, 114_256),
    ],
)
def test_conll(name, file, columns, sentences, words):
    # of KMOU each sentence itself stands before its tokens, and once more with marks
    comments = {"kmou_ner": (";", "$"), "ud_ko_kaist": ("# ",)}.get(name, ())
    found = conll(real_file(name, file), columns, comments=comments)
    assert (len(found), sum(map(len, found))) == (sentences, words)


# what is wrong is said, with the file and the line


def test_parallel_says_what_does_not_match(tmp_path):
    a, b = tmp_path / "a.de", tmp_path / "b.en"
    a.write_text("eins\nzwei\ndrei\n")
    b.write_text("one\ntwo\n")
    with pytest.raises(
        InputError, match=r"a.de has 3 .*b.en has 2.*line 3 has no pair"
    ):
        tables.parallel(a, b)
    b.write_text("one\n \nthree\n")
    with pytest.raises(InputError, match=r"a.de, line 2: an empty sentence"):
        tables.parallel(a, b)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (tables.pairs_of_table, "a\tb\nc\n", "line 2: 1 columns, 2 expected"),
        (tables.pairs_of_table, "a\tb\n\tc\n", "line 2: an empty sentence"),
        (tables.labelled, "1 good\n0\n", "line 2: no text after the label"),
        (conll, "a B\nb\n", "line 2: 1 columns, 2 expected"),
        (conllu, "1\ta\n", "line 1: 2 columns between tabs, 10 expected"),
    ],
)
def test_bad_lines(tmp_path, reader, text, message):
    path = tmp_path / "file.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"file.txt, {message}"):
        reader(path)


def test_damaged_files(tmp_path):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(TEXT)[:-100])
    with pytest.raises(InputError, match=r"text.gz: the file is damaged"):
        datasets.read(path)
    path.write_bytes(b"not packed at all")
    with pytest.raises(InputError, match=r"text.gz: .*[Nn]ot a gzipped"):
        datasets.read(path)
    path = tmp_path / "text.txt"
    path.write_bytes("eins\nzw\xf6i\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"text.txt, line 2: not utf-8"):
        datasets.read(path)
    with pytest.raises(InputError, match="No such file"):
        datasets.read(tmp_path / "none")


def test_what_is_typed(monkeypatch):
    """Line by line, so that what stands before a wrong one is answered."""
    typed = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbfone \xc3\xa9\r\n\ntwo\n\xff\n"))
    monkeypatch.setattr(sys, "stdin", typed)
    found = datasets.typed()
    assert [next(found) for _ in range(3)] == ["one é", "", "two"]
    with pytest.raises(InputError, match="line 4: not utf-8 text"):
        next(found)


def test_other_spaces_are_parts_of_tokens(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("a\u00a0b  O\nc\tO \n\u3000\tO\n")
    assert conll(path) == [[("a\u00a0b", "O"), ("c", "O"), ("\u3000", "O")]]


def test_split_is_whole():
    cut = lambda of: datasets.split(range(100), 0.1, 0, of)
    parts = cut(lambda n: n)
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(n for part in parts for n in part) == list(range(100))
    assert parts == cut(lambda n: n)
    parts = cut(lambda n: n // 3)  # those that are alike stay together
    assert sorted(n for part in parts for n in part) == list(range(100))
    alike = [{n // 3 for n in part} for part in parts]
    assert not (alike[0] & alike[1] or alike[0] & alike[2] or alike[1] & alike[2])
    assert all(10 <= len(part) <= 12 for part in parts[1:])
