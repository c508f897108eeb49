"""Wrong things that people type, in a folder of their own data, and what the one line must say: what to type instead.

The folder holds: ``scans`` (pictures in class folders), ``listed`` (pictures with a labels.csv), ``dicom`` (files with a labels.csv),
``loose`` (pictures, no labels), ``split`` (train/ and test/ with class folders), ``empty``, ``mine.yaml`` (a configuration for
``scans``), ``run`` (its ingest), ``strange`` (pictures with a table of other names), ``words.yaml`` (no mapping), ``twice.yaml`` (a key
twice), ``tabs.yaml`` (no YAML), ``notes.txt``, ``set.npz``, ``scans.zip``, ``sheet`` (loose pictures beside a workbook), ``marked`` (one
column of 1 and 0).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """What is typed after ``synthcohort``, what the line must hold, and the exit code."""

    typed: str
    says: tuple[str, ...]
    code: int = 2


def _turn(typed: str, *says: str, code: int = 2) -> Turn:
    return Turn(typed, says, code)


TURNS = (
    # no such thing
    _turn("run quikstart", "did you mean quickstart?"),
    _turn("run mine.yml", "no configuration 'mine.yml'", "YAML file"),
    _turn("run nowhere/", "no configuration 'nowhere/'", "no such folder"),
    _turn("init nowhere", "no such folder"),
    _turn("show nowhere", "runs/quickstart"),
    _turn("verify nowhere", "runs/quickstart/release"),
    _turn("settings trian", "did you mean train?"),
    _turn("settings train.bach", "train.batch"),
    _turn("scans", "synthcohort run scans"),
    _turn("quickstart", "synthcohort run quickstart"),
    _turn("helpme", "no such command", "synthcohort --help"),
    _turn("run", "missing argument", "synthcohort run --help"),
    _turn("run mine", "did you mean mine.yaml?"),
    _turn("run MINE.yaml", "did you mean mine.yaml?"),
    _turn("run mine.yaml --resume", "no such option", "synthcohort run --help"),
    _turn("run mine.yaml --set train.batch 64", "KEY=VALUE", "in quotes"),
    _turn("run mine.yaml --set ingest.classes=[normal, abnormal]", "in quotes"),
    _turn("run mine.yaml --train.batch=64", "--set train.batch=64"),
    _turn("run mine.yaml train.batch=64", "--set train.batch=64"),
    _turn("generate run --class normal=5", "missing option", "--out", "synthcohort generate --help"),
    _turn("init scans listed", "extra argument", "synthcohort init"),
    _turn("run mine.yaml --anyway=true", "does not take a value", "synthcohort run --help"),
    _turn("run mine.yaml --set", "requires an argument", "synthcohort run --help"),
    _turn("run mine.yaml --set =3", "KEY=VALUE"),
    _turn("where", "missing argument", "synthcohort where --help"),
    # the wrong kind of thing
    _turn("run run", "is a run folder", "synthcohort show run"),
    _turn("init run", "is a run folder", "synthcohort show run"),
    _turn("plan scans", "is a folder", "synthcohort init scans --write"),
    _turn("init mine.yaml", "is a file", "folder that holds the images"),
    _turn("init notes.txt", "is a file"),
    _turn("run notes.txt", "not a mapping of sections", "synthcohort init FOLDER"),
    _turn("run scans/normal/000.png", "no text", "YAML file"),
    _turn("verify run", "is a run folder", "no release yet"),
    _turn("init set.npz", "breastmnist.npz"),
    _turn("show scans", "not a run folder", "runs/quickstart"),
    _turn("show run/ingest", "not a run folder", "such as run"),
    _turn("show run/ingest/cohort.json", "no run folder", "such as run"),
    _turn("generate run/ingest --class normal=5 --out more", "no trained model", "such as run"),
    _turn("purge scans", "no run folder", "runs/quickstart"),
    _turn("verify scans", "no release folder", "runs/quickstart/release"),
    _turn("where P1 --runs run", "is a run folder", "--runs"),
    _turn("where P1 --runs scans", "no run folder lies in scans", "--runs"),
    _turn("init scans.zip", "unpack it into a folder"),
    _turn("audit run", "synthcohort run CONFIG --out run --until audit"),
    _turn("audit scans", "--train FOLDER"),
    _turn("audit scans listed", "--train FOLDER", "--synthetic FOLDER"),
    _turn("release --synthetic scans", "--train", "--holdout"),
    _turn("audit --train scans --synthetic listed --holdout scans", "--holdout is the folder of --train", "never saw"),
    _turn("audit --train scans --synthetic listed --holdout-random loose", "--holdout FOLDER --holdout-random"),
    _turn("audit --train scans --synthetic empty", "holds no file", "--synthetic"),
    # data that does not say what it is
    _turn("init empty", "holds no file"),
    _turn("init loose", "a folder for each class", "labels.csv"),
    _turn("run loose", "a folder for each class", "labels.csv"),
    _turn("init split", "splits or parts of a set and no classes", "give"),
    _turn("init scans --write mine.yaml", "mine.yaml exists", "--write"),
    _turn("init scans --write scans/mine.yaml", "outside", "synthcohort run FILE.yaml"),
    _turn("run .", "outside", "synthcohort init . --write FILE.yaml"),
    _turn("init scans --write no/such/mine.yaml", "no folder", "--write"),
    _turn("init sheet", "labels.xlsx is a workbook", "labels.csv"),
    _turn("init marked", "columns file, ill", "label"),
    _turn("init strange", "none of 24 files has a class by labels.csv", "img/0001.png"),
    # settings
    _turn("run mine.yaml --set train.bach=3", "did you mean train.batch"),
    _turn("run mine.yaml --set batch=3", "train.batch or generate.batch"),
    _turn("run mine.yaml --set train.per_class=3", "generate.per_class"),
    _turn("run mine.yaml --set train.batch", "KEY=VALUE"),
    _turn("run mine.yaml --set train.batch=many", "train.batch"),
    _turn("run mine.yaml --set train=fast", "synthcohort settings train"),
    _turn("run mine.yaml --set ingest.classes=normal", "ingest.classes='[normal, ...]'"),
    _turn("run mine.yaml --set ingest.classes=[normal,tb]", "names tb", "no class fits abnormal (12)"),
    _turn("run mine.yaml --set ingest.path=nowhere", "no such folder", "ingest.path"),
    _turn("plan mine.yaml --set ingest.path=nowhere", "no such folder", "ingest.path"),
    _turn("run mine.yaml --until trian", "--until trian", "train"),
    _turn("run twice.yaml", "appears twice"),
    _turn("run tabs.yaml", "not valid YAML", "line"),
    # too little
    _turn("run mine.yaml --out run", "300 sealed images are needed", "--anyway", code=4),
)
