"""Prints the text of an FAQ of Debian's package `anarchism` without its markup: a second text to measure models on.

    apt-get install anarchism && python3 benchmarks/llm/anarchism_text.py > anarchism.txt
"""
import glob
import html.parser
import re


class Prose(html.parser.HTMLParser):
    """Collects the paragraphs of a page."""

    def __init__(self):
        super().__init__()
        self.paragraphs, self.open = [], False

    def handle_starttag(self, tag, attributes):
        if tag == "p":
            self.open = True
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        self.open = self.open and tag != "p"

    def handle_data(self, data):
        if self.open:
            self.paragraphs[-1] += data


for path in sorted(glob.glob("/usr/share/doc/anarchism/html/sec*.html")):
    page = Prose()
    page.feed(open(path, encoding="utf-8", errors="replace").read())
    for paragraph in page.paragraphs:
        text = re.sub(r"\s+", " ", paragraph).strip()
        if len(text) > 200:
            print(text, end="\n\n")
