"""changelog.py VERSION MAINTAINER FOLDER: the newest section of CHANGELOG.md as Debian's changelog and as nfpm's, in FOLDER."""
import datetime
import email.utils
import json
import os
import re
import sys
import textwrap


def notes(version):
    with open("CHANGELOG.md", encoding="utf-8") as file:
        text = file.read()
    section = re.search(rf"^## (?:\[?{re.escape(version)}\b|Unreleased)[^\n]*\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    points = re.findall(r"^- (.*?)(?=^- |^#|\Z)", section[1] if section else "", re.S | re.M)
    return [" ".join(point.replace("`", "").split()) for point in points] or [f"Version {version}."]


def main():
    version, maintainer, folder = sys.argv[1:]
    when = int(os.environ["SOURCE_DATE_EPOCH"])
    changes = notes(version)
    with open(os.path.join(folder, "changelog.Debian"), "w", encoding="utf-8") as file:
        print(f"pgsluice ({version}-1) stable; urgency=medium\n", file=file)
        for change in changes:
            print(textwrap.fill(change, 76, initial_indent="  * ", subsequent_indent="    "), file=file)
        print(f"\n -- {maintainer}  {email.utils.formatdate(when)}", file=file)
    date = datetime.datetime.fromtimestamp(when, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    entry = {"semver": version, "date": date, "packager": maintainer, "changes": [{"note": change} for change in changes]}
    with open(os.path.join(folder, "changelog.yaml"), "w", encoding="utf-8") as file:
        json.dump([entry], file, indent=1)  # JSON is YAML


main()
