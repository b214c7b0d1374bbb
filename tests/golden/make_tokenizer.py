"""Makes engine/tokenizer/: small tokenizers, and what the `tokenizers` package makes of a page of text with them.

    pip install tokenizers==0.23.3
    python make_tokenizer.py OUT_DIR [SHARED_REFERENCE_DIR]

OUT_DIR/page.bin: cases, between lines of %%, some of them broken UTF-8. OUT_DIR/gpt2.json, llama3.json: tokenizers trained
on that page. OUT_DIR/expected-*.json: for each case of the page `ids` with the post-processor's tokens, `plain` without
where they differ, and the texts `shown`, without special tokens, and `decoded` where it differs. OUT_DIR/variants.json:
other components, put over those of gpt2.json, and the ids of `text`. OUT_DIR/smollm2.json, if the directory is given: for
each 1,000 lines of its text/ how many ids smollm2/tokenizer.json gives, and FNV-1a of them as 4 bytes each, lowest first.
"""
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

out = Path(sys.argv[1])
SEPARATOR = b"\n%%\n"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
CASES = [
    "The quick brown fox jumps over the lazy dog. It's what they'd said; we'll see, I'm sure you've THEY'RE DON'T.",
    "the theme of the thing: there, then, these and those; other weather together with another mother",
    " leading space, and trailing space ",
    "",
    " ",
    "a",
    "spaces:" + " " * 37 + "end" + " " * 8 + "\n" + " " * 5,
    "\n" * 11 + "line\r\n\r\n\tTab\t\t\tTabs\n \n  \n   x\r\r y",
    "Numbers 1 12 123 1234 1234567890 3.14159 0x1F 1e-9 ½ Ⅻ ٣٤٥ १२३ ²³",
    "👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇨🇭 ✈️ 👍🏽 😀😃😄",
    "漢字かな交じり文。これは日本語です。今天天氣很好，我们去公园吧！ 한국어 문장입니다.",
    "السلام عليكم ورحمة الله وبركاته، كَيْفَ حَالُكَ؟ שלום עולם",
    "हिन्दी में एक वाक्य। ไม่มีช่องว่าง ქართული ᠮᠣᠩᠭᠣᠯ\u180eᠦ Ελληνικά Кириллица",
    "Cafe\u0301 naïve A\u030angstro\u0308m a\u0323\u0301 a\u0301\u0323 \u1100\u1161\u11a8 \u212b \ufb01 q\u0307\u0323 e\u0301e\u0301",
    "def f(x: int) -> int:\n    return x**2 if x != 0 else -1  # comment\n\nfor (int i = 0; i < n; ++i) { a[i] += b->c; }\n",
    "<div class=\"a\">&amp;</div> http://example.org/?q=1&r=%20 user@host.example $HOME ~/.config C:\\dir",
    "control \x00\x01\x02\x1b[0m \x7f \x85 \xa0 \u2028 \u2029 \u200b \u3000 \ufeff end",
    "K\u212a \u017f'\u017f 'S 'ſ 'LL 'Ll \u01c5 \u00df SS",
    "<|endoftext|>begin<|endoftext|><|end",
    "<bos>hello<eos> <tool>call(1)</tool> <tool><tool> <to",
    "a  <mask>  b <pad>   c <pad>\n\nd  <mask><mask> e <pad> <mask> f",
    "sub sub. subword subs _sub sub_ sub2 (sub) sub\u0301 sub👍 sub",
    "\u00c5ngstr\u00f6m A\u030angstro\u0308m \u212bngstr\u00f6m cafe\u0301s caf\u00e9s",
    "unreachable is one token, unreachables are not",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbabababababababababa",
    "!!!???...;;;---___***((()))[[[]]]{{{}}} #$%^&*() \"quoted\" 'single' ‘curly’ “curly” — – …",
    b"broken: \xff \xfe\xff \x80 \xc0\xaf \xc3( \xe2\x28\xa1 \xe2\x82 \xf0\x9f\x98 x \xf0\x9f\x98",
    b"surrogate \xed\xa0\x80 overlong \xe0\x80\xaf \xf0\x80\x80\xaf beyond \xf4\x90\x80\x80 \xf8\x88\x80\x80\x80 cut \xe6\xbc",
    b"\xe6\xbc\xa2\xe6\xbc \xc3\xa9\xc3 <bos\xff> <\xe2\x80bos>",
]
cases = [c if isinstance(c, bytes) else c.encode() for c in CASES]
assert not any(b"%%" in c for c in cases)
page = [c.decode("utf-8", "replace") for c in cases]
(out / "page.bin").write_bytes(SEPARATOR.join(cases))


def train(tokenizer, size, special):
    tokenizer.train_from_iterator([text for text in page * 2 if "unreachable" not in text],
                                  trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False,
                                                      initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.decoder = decoders.ByteLevel()


def write(name, document):
    (out / name).write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def expect(name, document):
    write(f"{name}.json", document)
    t = Tokenizer.from_file(str(out / f"{name}.json"))
    made = []
    for text in page:
        case = {"ids": t.encode(text).ids, "plain": t.encode(text, add_special_tokens=False).ids}
        case["shown"] = t.decode(case["ids"])
        case["decoded"] = t.decode(case["ids"], skip_special_tokens=False)
        if case["plain"] == case["ids"]:
            del case["plain"]
        if case["decoded"] == case["shown"]:
            del case["decoded"]
        made.append(case)
    write(f"expected-{name}.json", {"cases": made})


gpt2 = Tokenizer(models.BPE())
gpt2.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
train(gpt2, 700, ["<|endoftext|>"])
gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
gpt2 = json.loads(gpt2.to_str())
gpt2["model"]["merges"] = [" ".join(m) for m in gpt2["model"]["merges"]]
expect("gpt2", gpt2)

llama3 = Tokenizer(models.BPE(ignore_merges=True))
llama3.normalizer = normalizers.NFC()
llama3.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
train(llama3, 800, [])
llama3 = json.loads(llama3.to_str())
vocabulary = llama3["model"]["vocab"]
assert "unreachable" not in vocabulary
vocabulary["unreachable"] = len(vocabulary)  # no merges lead there
llama3 = Tokenizer.from_str(json.dumps(llama3))
llama3.add_special_tokens(["<bos>", "<eos>", AddedToken("<mask>", lstrip=True), AddedToken("<pad>", rstrip=True)])
llama3.add_tokens(["<tool>", AddedToken("</tool>", normalized=False), AddedToken("sub", single_word=True),
                   AddedToken("A\u030angstro\u0308m", normalized=True), AddedToken("cafe\u0301s", normalized=False)])
llama3.post_processor = processors.TemplateProcessing(
    single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", llama3.token_to_id("<bos>"))])
expect("llama3", json.loads(llama3.to_str()))

TEXT = ("Some CamelCaseWords, 12 apples & 345 pears--really?  Two  spaces\nthe end. The the a.b.c ½٣x " + page[13] + page[9])


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(*parts):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(parts)}}


def template(before, after):
    token = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
    special = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    single = [special] * before + [{"Sequence": {"id": "A", "type_id": 0}}] + [special] * after
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": token}


changes = [sequence(split({kind: pattern}, behavior, invert), byte_level())
           for kind, pattern in (("Regex", r"\s+|[.,]"), ("String", "the"), ("Regex", r"(?=[A-Z])"), ("String", ""))
           for behavior in ("Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext")
           for invert in (False, True)]
changes += [sequence({"type": "Digits", "individual_digits": individual}, byte_level(regex=True))
            for individual in (False, True)]
changes += [sequence(split({"Regex": pattern}, "Isolated"), byte_level()) for pattern in (
    r"\s?[A-Za-zÀ-ÿ]+|[^\S\n]+|[]x\s]+", r"^.|.$", r"(?i:the)|[一-龥ࠀ-一가-퟿]+", r"\p{Lu}\p{Ll}++|\p{Han}|\x{61}\.|\S(?<=b)")]
changes += [sequence(split({"String": "e"}, "Removed"), byte_level(prefix=True, regex=regex)) for regex in (False, True)]
changes += [{"pre_tokenizer": byte_level(prefix=True, regex=True)}, {"pre_tokenizer": byte_level()}]
changes += [{"normalizer": {"type": "NFC"}},
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}},
            {"normalizer": {"type": "Sequence", "normalizers": []}},
            {"post_processor": None}, {"post_processor": template(1, 2)}, {"added_tokens": []},
            {"post_processor": {"type": "Sequence", "processors": [byte_level(), template(1, 1)]}},
            {"decoder": {"type": "Sequence", "decoders": [byte_level()]}}]
for change in changes:
    t = Tokenizer.from_str(json.dumps({**gpt2, **change}))
    change["ids"] = t.encode(TEXT).ids
write("variants.json", {"text": TEXT, "variants": changes})


def fnv1a(ids):
    h = 0xcbf29ce484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        h = (h ^ byte) * 0x100000001b3 % 2**64
    return h


if len(sys.argv) > 2:
    reference = Path(sys.argv[2])
    t = Tokenizer.from_file(str(reference / "smollm2" / "tokenizer.json"))
    files = {}
    for path in sorted((reference / "text").iterdir()):
        lines = path.read_bytes().split(b"\n")
        lines = [line + b"\n" for line in lines[:-1]] + [line for line in lines[-1:] if line]
        chunks = [t.encode(b"".join(lines[k:k + 1000]).decode()).ids for k in range(0, len(lines), 1000)]
        files[path.name] = [{"count": len(ids), "fnv1a": f"{fnv1a(ids):016x}"} for ids in chunks]
    write("smollm2.json", {"files": files})
