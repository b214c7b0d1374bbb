"""Makes engine/chat/expected.json: the prompts that transformers makes of conversations with chat templates.

    pip install torch transformers jinja2 && python make_chat.py CHAT_DIR SMOLLM2_DIR

CHAT_DIR: where this lies, with a directory for each template, which is written by hand; SMOLLM2_DIR: SmolLM2's, whose
template stays there. expected.json: cases of {format: name of a directory or smollm2, messages, prompt}.
"""
import json
import pathlib
import shutil
import sys
import tempfile

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

chat, smollm2 = map(pathlib.Path, sys.argv[1:3])
SYSTEM = ("system", "Be kind.")
ASKED = ("user", "Grüße! What is 2 < 3?")
SPACED = ("user", " \n two\n\nlines \t\n")
ANSWERED = ("assistant", " It is true. ")
CONVERSATIONS = [[ASKED], [SYSTEM, ASKED], [ASKED, ANSWERED, SPACED], [SYSTEM, SPACED, ANSWERED, ASKED]]

expected = []
for directory in sorted(path for path in chat.iterdir() if path.is_dir()) + [smollm2]:
    with tempfile.TemporaryDirectory() as model:
        for name in ("chat_template.jinja", "tokenizer_config.json"):
            if (directory / name).exists():
                shutil.copyfile(directory / name, f"{model}/{name}")
        Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(f"{model}/tokenizer.json")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    for conversation in CONVERSATIONS:
        messages = [dict(role=role, content=content) for role, content in conversation]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        expected.append(dict(format=directory.name, messages=messages, prompt=prompt))
(chat / "expected.json").write_text(json.dumps({"cases": expected}, ensure_ascii=False, indent=1) + "\n")
