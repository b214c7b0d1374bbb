"""The rows of the table: what is done to the model, and how it is called."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    name: str  # of its files, and what --only matches
    label: str
    section: str
    calibration: str = ""  # what was looked at beside the weights: "", random, self or text
    options: tuple = ()  # of sinq quantize; {KIND} stands for the file of moments of that kind
    ggml_type: str = ""  # instead of sinq quantize


FLOAT = Row("float", "float", "float")
CALIBRATIONS = {"": "", "random": "random tokens", "self": "own texts", "text": "text"}
WIDTHS = (4, 3, 2)
# ggml's types beside the width that they come closest to
GGML_TYPES = {4: ("Q4_0", "Q4_1", "IQ4_NL", "Q4_K"), 3: ("Q3_K",), 2: ("Q2_K",)}
PRESET_SECTIONS = {preset: f"preset {preset}" for preset in ("4.5", "4.25", "3.5")}
SECTIONS = [FLOAT.section, *(f"{bits} bits" for bits in WIDTHS), *PRESET_SECTIONS.values()]  # as they are shown



def of_method(bits, name, label, *options, calibration="", group_size=64):
    group = ("--group-size", str(group_size))
    suffix = "" if group_size == 64 else f"-g{group_size}"
    if group_size != 64:
        label += f", groups of {group_size}"
    return Row(f"{bits}-{name}{suffix}", label, f"{bits} bits", calibration, ("--bits", str(bits), *group, *options))


def calibration_free(bits):
    def plain(name, label):
        return of_method(bits, name, label, "--method", name, "--refine", "none")

    yield plain("rtn", "RTN")
    yield plain("hadamard_rtn", "Hadamard + RTN")
    yield plain("hqq", "HQQ")
    if bits in (3, 4):
        yield plain(f"nf{bits}", f"NF{bits}")
    yield plain("sinq", "SINQ")
    yield of_method(bits, "paper", "SINQ, the paper's iteration", "--refine", "none", "--sinkhorn", "reference")
    yield of_method(bits, "official", "SINQ as the official package decides", "--compat", "official")
    yield plain("sinq_hqq", "SINQ + HQQ")
    if bits in (3, 4):
        yield plain(f"sinq_nf{bits}", f"SINQ-NF{bits}")
    yield of_method(bits, "refined", "SINQ, refined")


def calibrated(bits):
    for name, label in (("awq", "AWQ"), ("asinq", "A-SINQ"), ("gptq", "GPTQ"), ("hadamard_gptq", "Hadamard + GPTQ"),
                        ("sinq_gptq", "SINQ + GPTQ")):
        yield of_method(bits, name, label, "--method", name, "--refine", "none", "--moments", "{text}",
                        calibration="text")


def refined(label, make):
    """Refined by moments; make(NAME, LABEL, OPTION..., calibration=KIND) is one row."""
    for kind in ("random", "self", "text"):
        yield make(f"refined-{kind}", label, "--refine", f"{{{kind}}}", "--no-feedback", calibration=kind)
    for kind in ("self", "text"):
        yield make(f"refined-{kind}-feedback", label + ", error feedback", "--refine", f"{{{kind}}}", calibration=kind)


def other_groups(bits):
    for size in (32, 128):
        yield of_method(bits, "sinq", "SINQ", "--refine", "none", group_size=size)
        yield of_method(bits, "refined", "SINQ, refined", group_size=size)
        yield of_method(bits, "refined-self-feedback", "SINQ, refined, error feedback", "--refine", "{self}",
                        calibration="self", group_size=size)


def ggml(bits):
    for name in GGML_TYPES[bits]:
        yield Row(f"ggml-{name}", f"ggml {name}", f"{bits} bits", ggml_type=name)
    for name in GGML_TYPES[bits]:
        if name != "Q4_1":
            yield Row(f"ggml-{name}-self", f"ggml {name}, importance matrix", f"{bits} bits", "self", ggml_type=name)


def presets():
    for preset in PRESET_SECTIONS:
        def make(name, label, *options, calibration=""):
            return Row(f"preset-{preset}-{name}", label, PRESET_SECTIONS[preset], calibration,
                       ("--preset", preset, *options))

        yield make("refined", "SINQ, refined")
        for row in refined("SINQ, refined", make):
            if row.calibration == "self":
                yield row


def all_rows():
    """Those that the orders speak of come first."""
    for bits in (4, 3):
        yield from calibration_free(bits)
        yield from calibrated(bits)
        yield from refined("SINQ, refined", lambda *a, bits=bits, **k: of_method(bits, *a, **k))
        yield from ggml(bits)
    yield from presets()
    yield from calibration_free(2)
    yield from calibrated(2)
    yield from refined("SINQ, refined", lambda *a, **k: of_method(2, *a, **k))
    yield from ggml(2)
    for bits in WIDTHS:
        yield from other_groups(bits)
