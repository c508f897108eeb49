"""Forgeries of a refused release, each with what the finding must say."""

from __future__ import annotations

from forging import (
    BASE64,
    RASTER,
    Forgery,
    appended,
    check,
    edited,
    in_report,
    json_edit,
    linked,
    written,
)

GREY = "".join(f'<rect class="bar" x="{i % 28}" y="{i // 28}" width="1" height="1" rx="0"/>' for i in range(784))
CELLS = "<table><tr>" + "".join(f'<td class="h{i % 8}"></td>' for i in range(784)) + "</tr></table>"

REFUSED: dict[str, tuple[Forgery, str]] = {
    "a picture file": (written("image.png", b"\x89PNG"), "image.png must not be"),
    "an archive": (written("cohort.npz", b"PK"), "cohort.npz must not be"),
    "rows": (written("rows.csv", b"id\n"), "rows.csv must not be"),
    "a folder": (lambda r: (r / "images").mkdir(), "the folder images must not be"),
    "a picture in the report": (in_report(f'<img alt="x" src="data:image/png;base64,{RASTER}">'), "report.html"),
    "base64 in the report": (in_report(f"<p>{RASTER}</p>"), "report.html"),
    "base64 in pieces": (in_report("<p>" + " ".join(RASTER[i : i + 32] for i in range(0, 1000, 32)) + "</p>"), "report.html"),
    "base64 in words": (in_report("".join(f"<p>{BASE64[i : i + 12]} and</p>" for i in range(0, 4000, 12))), "report.html"),
    "hexadecimal in words": (in_report("".join(f"<p>{i * 0x9E3779B97F4A7C15 % (1 << 64):016x}</p>" for i in range(99))), "report.html"),
    "base64 over elements": (
        in_report("".join(f"<p>{BASE64[i : i + 64]} {BASE64[i + 64 : i + 128]} {BASE64[i : i + 64]}</p>" for i in range(0, 2000, 128))),
        "report.html",
    ),
    "hexadecimal pixels": (in_report(f"<p>{bytes(range(256)).hex()}</p>"), "report.html"),
    "hexadecimal pixels as digests": (in_report("".join(f"<p>{i:064x}</p>" for i in range(20))), "report.html"),
    "a picture in CSS": (in_report('<i style="background:url(data:image/jpeg;x)">x</i>'), "report.html"),
    "a picture in a style sheet": (
        edited("report.html", "<style>", f"<style>p{{background:url(data:image/png;base64,{RASTER})}}"),
        "report",
    ),
    "a picture in capitals": (in_report("<p><IMG src=x>"), "report.html"),
    "a picture of rectangles": (in_report(f'<svg viewBox="0 0 28 28">{GREY}</svg>'), "report.html"),
    "a picture of coloured rectangles": (in_report('<svg><rect x="0" y="0" width="1" height="1" fill="#777"/></svg>'), "report.html"),
    "a picture of cells": (in_report(CELLS), "report.html"),
    "a picture as a path": (in_report('<svg><path d="M0 0h28v28"/></svg>'), "report.html"),
    "a picture in SVG": (in_report('<svg><image href="x.png"/></svg>'), "report.html"),
    "a canvas": (in_report("<canvas></canvas>"), "report.html"),
    "an object": (in_report('<object data="x.png"></object>'), "report.html"),
    "a video": (in_report('<video poster="x.png"></video>'), "report.html"),
    "a script": (in_report("<script>x()</script>"), "report.html"),
    "a template element": (in_report("<template><p>x</p></template>"), "report.html"),
    "a comment": (in_report(f"<!--{RASTER}-->"), "report.html"),
    "CDATA": (in_report(f"<svg><![CDATA[{RASTER}]]></svg>"), "report.html"),
    "a text as an attribute": (in_report(f'<svg aria-label="{RASTER}"></svg>'), "report.html"),
    "a linked raster": (
        lambda r: ((r.parent / "x.png").write_bytes(b"\x89PNG"), (r / "report.html").unlink(), (r / "report.html").symlink_to("../x.png")),
        "report.html is a link",
    ),
    "a linked verdict": (linked("gate.json"), "gate.json is a link"),
    "a link beside": (lambda r: (r / "x").symlink_to("../x.png"), "x is a link"),
    "base64 in the verdict": (json_edit("gate.json", lambda v: v["images"]["reasons"].append(RASTER)), "gate.json contradicts itself"),
    "base64 as a key": (json_edit("gate.json", lambda v: v.update({RASTER: 1})), "gate.json has other keys"),
    "base64 in a check": (check("copies", meaning=RASTER), "gate.json does not hold together"),
    "a fail relabelled as pass": (
        json_edit("gate.json", lambda v: (v.update(verdict="pass"), v["images"].update(verdict="pass"))),
        "gate.json",
    ),
    "an image appended to the report": (appended("report.html", b"\x89PNG\r\n\x1a\n" + bytes(900)), "report.html"),
    "an image for a report": (written("report.html", b"\x89PNG\r\n\x1a\n" + bytes(900)), "report.html"),
    "no report": (lambda r: (r / "report.html").unlink(), "report.html is missing"),
    "payload in the record": (json_edit("record.json", lambda v: v.update(image=RASTER)), "record.json"),
    "images in the record": (json_edit("record.json", lambda v: v["summary"].update(images=10)), "record.json"),
}
