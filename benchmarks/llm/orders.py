"""What is expected of the table, and whether it is so."""
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Order:
    """left < factor * right, or <= where equal is enough."""
    left: str
    right: str
    metric: str  # perplexity or kl
    factor: float = 1
    or_equal: bool = False

    def holds(self, results):
        left, right = (results[name][self.metric] for name in (self.left, self.right))
        return left <= self.factor * right if self.or_equal else left < self.factor * right


# KL of refined SINQ as a part of that of the paper's algorithm, by what it is refined with
RATIOS = {"refined": (.75, .75), "refined-random": (.55, .45), "refined-self": (.50, .42),
          "refined-self-feedback": (.40, .32)}


def expected():
    for column, bits in enumerate((4, 3)):
        for metric in ("perplexity", "kl"):
            yield Order(f"{bits}-sinq", f"{bits}-rtn", metric)
            yield Order(f"{bits}-sinq", f"{bits}-hqq", metric)
            yield Order(f"{bits}-sinq", f"{bits}-paper", metric, or_equal=True)
            yield Order(f"{bits}-asinq", f"{bits}-sinq", metric, or_equal=True)
        for name, factors in RATIOS.items():
            yield Order(f"{bits}-{name}", f"{bits}-paper", "kl", factors[column], or_equal=True)


def paired_difference(left, right):
    """Mean of left - right over windows, and its standard error (None for one window)."""
    differences = [a - b for a, b in zip(left, right)]
    mean = sum(differences) / len(differences)
    if len(differences) < 2:
        return mean, None
    squares = sum((d - mean) ** 2 for d in differences)
    return mean, math.sqrt(squares / (len(differences) - 1) / len(differences))


def line(order, results):
    """One line for people."""
    sign = "<=" if order.or_equal else "<"
    times = "" if order.factor == 1 else f"{order.factor:.2f} x "
    what = f"{order.metric}: {order.left} {sign} {times}{order.right}"
    missing = [name for name in (order.left, order.right) if name not in results]
    if missing:
        return f"- {what}: not measured ({', '.join(missing)})"
    left, right = results[order.left], results[order.right]
    verdict = "holds" if order.holds(results) else "**DOES NOT HOLD**"
    found = f"{left[order.metric]:.4g} against {right[order.metric]:.4g}"
    if order.factor != 1:
        return f"- {what}: {verdict}: {found}, {left[order.metric] / right[order.metric]:.2f} of it"
    series = {"perplexity": "nll", "kl": "kl"}[order.metric]
    mean, error = paired_difference(left["each_window"][series], right["each_window"][series])
    unit = "-log p" if order.metric == "perplexity" else "KL"
    spread = "" if error is None else f" +- {error:.4f}"
    return f"- {what}: {verdict}: {found}; difference in {unit}, window by window, {mean:+.4f}{spread}"
