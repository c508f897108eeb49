"""Settings that make no sense are told when they are read, in one line, whatever they are written in."""

import codecs

import pytest

from pipeline.config import load_config
from pipeline.errors import InputError

SECTIONS = "train: {images: 1}\ngenerate: {per_class: 1}\n"
MINIMAL = "name: c\ningest: {source: phantom}\n" + SECTIONS


def refused(*settings, config="quickstart"):
    with pytest.raises(InputError) as error:
        load_config(config, settings)
    message = str(error.value)
    assert len(message) < 500
    assert message.isprintable(), message
    return message


@pytest.mark.parametrize(
    "setting",
    [
        "train.batch=.inf",
        "train.batch=-.inf",
        "train.batch=.nan",
        "train.batch=0",
        "train.batch=-1",
        "train.batch=1e10",
        "train.batch=1.0e+10",
        "train.batch=10000000000",
        "train.batch=1" + 400 * "0",
        "train.batch=" + 10_000 * "9",
        "train.batch=0x" + 10_000 * "f",
        "train.batch=1.5",
        "train.batch=true",
        "train.batch=null",
        "train.batch=[]",
        "train.batch=",
        "train.images=1e12",
        "train.checkpoint_images=1000000000000",
        "train.blocks=1000",
        "train.widths=[0]",
        "train.widths=[100000]",
        "train.widths=[.inf, 64]",
        "train.attention=[-8]",
        "train.learning_rate=.inf",
        "train.learning_rate=.nan",
        "train.learning_rate=1e10",
        "train.learning_rate=1e-300",
        "train.learning_rate=1e400",
        "train.learning_rate='nan'",
        "train.learning_rate=true",
        "train.ema=1e-300",
        "train.ema_snapshots=100000000",
        "train.plateau=99999999999999999999",
        "generate.per_class=100000000",
        "generate.steps=1000000",
        "generate.guidance_scale=.inf",
        "generate.guidance_scale=1e30",
        "generate.guidance_interval=[0.1, .inf]",
        "generate.guidance_interval=[.nan, .nan]",
        "generate.levels=[.nan, 8]",
        "generate.levels=[0.02]",
        "generate.eta=.nan",
        "audit.planted=1000000",
        "audit.membership_draws=100000",
        "train.images=.inf",
        "evaluate.seeds=1000000",
        "evaluate.classifier_images=1e30",
        "stress.images=-5",
        "release.max_copy_rate=.nan",
        "ingest.size=.inf",
        "ingest.size=100000",
        "ingest.spacing=.inf",
        "ingest.spacing=1e-300",
        "ingest.scaling={CT: [-.inf, .inf]}",
        "ingest.scaling={CT: [.nan, 1]}",
        "ingest.phantom_patients=100000000000",
        "ingest.val_share=.nan",
        "seed=-1",
        "seed=.inf",
        "seed=18446744073709551616",
    ],
)
def test_a_number_that_makes_no_sense(setting):
    assert setting.partition("=")[0] in refused(setting)


@pytest.mark.parametrize(
    "setting", ["seed", "train.batch", "train.learning_rate", "evaluate.seeds", "ingest.spacing", "release.max_copy_rate"]
)
@pytest.mark.parametrize(
    "value", ["0x10", "0X10", "010", "0o10", "0b11", "1_000", "1_0.5", "1:30", "1:30.5", "+010", "-0x1", "'8'", '"1e1"', "08", "1e1_0", "١"]
)
def test_a_number_that_is_not_written_in_decimal_digits(setting, value):
    assert "decimal digits" in refused(f"{setting}={value}")


@pytest.mark.parametrize("setting", ["train.images=Auto", "train.widths=AUTO", "train.dropout=' auto'"])
def test_auto_in_other_letters(setting):
    key = setting.partition("=")[0]
    assert f"{key}: write auto, in small letters and without blanks, got '" in refused(setting)


@pytest.mark.parametrize(
    "setting",
    [
        "train.widths=[0x10]",
        "train.attention=[010]",
        "ingest.mask=[[0, 0, 1, 0_1]]",
        "ingest.scaling={CT: [0, 1:30]}",
        "generate.levels=['0', 8]",
    ],
)
def test_a_list_of_numbers_that_are_not_written_in_decimal_digits(setting):
    assert "decimal digits" in refused(setting)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("train.batch=64", 64), ("train.batch=+8", 8), ("train.batch=1e2", 100), ("train.batch=8.0", 8), ("train.ema=.1", 0.1)),
        *(("train.learning_rate=1e-4", 1e-4), ("train.learning_rate=1.5E-3", 1.5e-3), ("train.dropout=0", 0), ("train.dropout=0.", 0)),
    ],
)
def test_a_number_in_decimal_digits(setting, value):
    section, key = setting.partition("=")[0].split(".")
    assert getattr(getattr(load_config("quickstart", [setting]), section), key) == value


def test_classes_that_look_like_numbers_of_another_notation_are_their_texts(tmp_path):
    names = "010, 0x1F, 1_000, 1:30, 0b1, 2020-01-02"
    path = tmp_path / "c.yaml"
    path.write_text(f"name: c\ningest: {{source: pictures, path: x, classes: [{names}]}}\n" + SECTIONS)
    assert load_config(path).ingest.classes == tuple(names.split(", "))


@pytest.mark.parametrize("setting", ["train.widths", "ingest.classes", "generate.levels", "generate.guidance_interval"])
def test_an_empty_list(setting):
    assert setting in refused(f"{setting}=[]")


@pytest.mark.parametrize("setting", ["train.attention=[]", "train.frozen=[]", "train.start_classes={}", "ingest.scaling={}"])
def test_an_empty_list_that_means_none(setting):
    load_config("quickstart", [setting])


@pytest.mark.parametrize(
    "names",
    [
        f"[{300 * 'a'}, b]",
        f"[{65 * 'é'}, b]",
        r'["a\e[31m", b]',
        r'["a\nb", c]',
        r'["a\tb", c]',
        r'["a\0", b]',
        r'["a\x9b31m", b]',
        r'["a\u202eb", c]',
        r'["a\u2028b", c]',
        "['', b]",
        "[' ', b]",
        "['a ', b]",
        "[., b]",
        "[.., b]",
        "[../b, c]",
        "[/etc/passwd, b]",
        "[a/b, c]",
        r"['a\b', c]",
        "[a, a]",
        "[a, A]",
        "[straße, STRASSE]",
        r'["\u00e9", "e\u0301"]',
        r'["ﬁn", "fin"]',
        "[a b, a_b]",
        "[a b, 'a  b']",
        "[0, 1]",
        "[null, b]",
        "[[a], b]",
        "[a, {b: c}]",
        "{a: b}",
        "a",
        "[" + ", ".join(f"c{number}" for number in range(1001)) + "]",
    ],
)
def test_a_class_name_that_cannot_be_released(names):
    assert "ingest.classes" in refused(f"ingest.classes={names}")


@pytest.mark.parametrize(
    "names", ["[HER2+, HER2-]", "[正常, 肺炎]", "[a.b, 'no', 'on']", f"[{64 * 'a'}, b]", "['=1+1', '@b']", "['<b>', '[bold]']"]
)
def test_a_class_name_that_can(names):
    assert len(load_config("quickstart", [f"ingest.classes={names}"]).ingest.classes) >= 2


@pytest.mark.parametrize("field", ["title", "licence", "contact"])
@pytest.mark.parametrize(
    "value", [r'"a\nb"', r'"a\rb"', r'"a\x85b"', r'"a\u2028b"', r'"\e]0;x\a"', r'"\0"', "''", "'   '", 201 * "x", "[a]", "5"]
)
def test_what_a_card_cannot_show(field, value):
    assert f"release.{field}" in refused(f"release.{field}={value}")


@pytest.mark.parametrize(
    "setting",
    [
        r'ingest.path="a\0b"',
        r'ingest.path="a\nb"',
        "ingest.path=~nobody-of-this-name/x",
        f"ingest.path={5000 * 'a'}",
        "train.start_from=~nobody-of-this-name/x",
        "ingest.dataset=../../etc/passwd",
        "ingest.dataset=Breast MNIST",
        "ingest.label_field=../x",
        "ingest.modality=ct scan of the chest",
        "ingest.scaling={ct: header}",
        "ingest.labels=''",
        "ingest.query={url: 'https://user:password@pacs/x', modality: DX}",
        "ingest.query={url: 'https://pacs', modality: '*'}",
        "name=../x",
        "name=''",
        f"name={200 * 'a'}",
        r'name="a\n"',
    ],
)
def test_a_name_that_leads_astray(setting):
    assert setting.partition("=")[0] in refused(setting)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 5000,
        "[" * 5000 + "]" * 5000,
        "{a: " * 5000 + "}" * 5000,
        "- " * 5000,
        "? " * 5000,
        "a:\n" + "".join(f"{' ' * depth}a:\n" for depth in range(1, 300)),
        "a: &a [x]\nb: *a",
        "a: &a [*a]",
        "a: &a {b: 1}\nc: {<<: *a}",
        "\n".join(["l0: &l0 [x]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))]),
        "a: 1\na: 2",
        "? [a]\n: b",
        "? {a: b}\n: c",
        "a: !!python/object/apply:os.system [ls]",
        "a: !!int x",
        "a: !!float x",
        "a: !!bool x",
        "a: !!timestamp x",
        "a: !!timestamp 2020-13-45",
        "a: !!binary x",
        "a: !!null [x]",
        "a: !!set {b, c}",
        "a: !own x",
        "a: [1, 2",
        "a: 'b",
        "a: b: c",
        "%YAML 9.9\n---\na: b",
        "a: b\n---\nc: d",
        "a: \x01",
        "@",
        "`",
        "",
        "null",
        "5",
        "[a]",
        "text",
        "# nothing",
        "1: 2",
        "null: 1",
        MINIMAL + 5000 * "x: 1\n",
        MINIMAL + "".join(f"x{number}: 1\n" for number in range(5000)),
        MINIMAL + "#" * (1 << 18),
    ],
)
def test_yaml_that_is_no_configuration(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    refused(config=path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_configuration_in_unicode(tmp_path, encoding):
    path = tmp_path / "c.yaml"
    path.write_bytes((MINIMAL + "release: {title: Été}\n").encode(encoding))
    assert load_config(path).release.title == "Été"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_a_configuration_in_unicode_of_the_other_order(tmp_path, mark):
    path = tmp_path / "c.yaml"
    path.write_bytes(mark + MINIMAL.encode("utf-16-be" if len(mark) == 2 else "utf-32-be"))
    assert load_config(path).name == "c"


@pytest.mark.parametrize(
    "content",
    [
        (MINIMAL + "release: {title: Été}\n").encode("latin-1"),
        (MINIMAL + "release: {title: “x”}\n").encode("cp1252"),
        (MINIMAL + "release: {title: 肺}\n").encode("shift-jis"),
        MINIMAL.encode("utf-16-le"),
        MINIMAL.encode("utf-16")[:-1],
        MINIMAL.encode("utf-16") + b"\x00\xd8",
        b"\xff",
        b"\x00" * 100,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"\x1f\x8b\x08" + bytes(100),
        MINIMAL.encode("utf-7") + b"\xc3",
        b"\xed\xa0\x80: 1",
    ],
)
def test_a_configuration_in_no_unicode(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    refused(config=path)


@pytest.mark.parametrize(
    "override", ["seed", "", "=", "=1", ".=1", "seed.x=1", "train=5", "train=", "a.b.c=1", 3000 * "a." + "b=1", "train..batch=1"]
)
def test_an_override_that_is_none(override):
    refused(override)
