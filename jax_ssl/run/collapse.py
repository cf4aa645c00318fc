"""Detects collapse. A falling loss does not show it: a constant output can be the minimum of the loss.

`losses.diagnostics` measures features, `Watch` judges these numbers, `check_finite` stops a run whose steps are being
skipped.
"""

from jax_ssl.errors import RunError

PATIENCE = 3  # checks in a row with a symptom: one bad batch, or a probe right after a restart, is no collapse

# Unit features with a mean cosine of c have feature_std sqrt(1 - c): 0.2 means c = 0.96. On CIFAR-10 the healthy runs
# of seven methods stay above 0.48; BYOL without its predictor is at 0.18 after 20 steps.
LOW_STD = 0.2
CONSTANT_STD = 1e-3  # of features that only differ by rounding
# Share of the best uniformity so far. Healthy runs of BYOL and SimSiam stay above 0.78; SimSiam without its
# stop-gradient is at 0.46 after 35 steps, while batch norm still keeps the deviation of every dimension high.
LOW_SPREAD = 0.5
# Below 2 the entropy of the spectrum is under log 2, so a single direction has more than half of it.
LOW_RANK = 2.0
# A loss closer than this to that of a constant output can't be told from it in the noise of a batch.
NEAR_UNIFORM = 1e-3  # relative to the uniform loss, or absolute if that is below 1
# Share of the K prototypes, for K of 128 to 512. Healthy runs of DINO stay below 0.6, of SwAV, whose targets are
# balanced, below 0.70; DINO with a teacher as soft as its student is above 0.75 after 30 steps and rises.
UNIFORM_TARGET = 0.75
# Effective number of prototypes. Healthy runs of DINO and SwAV use a third of all or more, and at the start at least 13
# of 512; DINO without centring is below 6 after 25 to 45 steps and stays there.
FEW_PROTOTYPES = 6.0

# {symptom: (the sentence with its numbers, what to try first: a noun that follows "try")}
TEXTS = {
    "feature_std": (
        "all images get nearly the same feature (feature_std {feature_std:.3f}, healthy is near 1)",
        "a lower optim.base_lr, or a longer optim.warmup_epochs",
    ),
    "uniformity": (
        "the embeddings have lost more than half of their spread (uniformity {uniformity:.2f}, 0 is a single point)",
        "a lower optim.base_lr, or a predictor that learns faster (optim.constant_rate)",
    ),
    "rankme": (
        "the features use a single direction (RankMe {rankme:.2f})",
        "stronger or more varied crops and colours, a larger batch_size, or a lower optim.base_lr",
    ),
    "uniform_loss": (
        "the loss is still that of an output without information ({loss:.4f}, uniform is {uniform_loss:.4f})",
        "a tenth of optim.base_lr and a longer optim.warmup_epochs",
    ),
    "target_spread": (
        "the teacher's targets are uniform (spread over {target_spread:.0%} of the prototypes)",
        "a lower teacher temperature, or weaker centring",
    ),
    "prototype_use": (
        "nearly all images share one prototype, or very few (effective number {prototype_use:.2f})",
        "switching centring or Sinkhorn on, or a higher teacher temperature",
    ),
}


class Watch:
    """Reports a symptom of collapse once, in one sentence, when it has persisted for `patience` checks.

    guards: {config key: whether it is on} of what prevents a constant output of this method (`Method.guards`).
    grace: steps in which nothing is reported: features of a new network are all similar.
    warmup: steps in which a symptom is only reported if it was absent before, or if a guard is off. A network whose
    blocks begin near the identity (layer_scale 1e-5) gives all images one feature until the learning rate has risen.
    Metrics it knows, all optional: `feature_std`, `uniformity`, `rankme`, `loss` with `uniform_loss`, `target_spread`
    (exp of the targets' mean entropy, over K) and `prototype_use` (exp of the entropy of the mean target, 1 to K).
    """

    def __init__(self, method_name: str, grace: int = 0, patience: int = PATIENCE, guards=None, warmup: float = 0):
        self.method_name = method_name
        self.off = [key for key, on in (guards or {}).items() if not on]
        self.grace, self.warmup = grace, warmup
        self.patience = patience
        # Only for losses that do not push images apart. SwAV's features form clusters, which is healthy.
        self.judges_spread = any(key.endswith(("predictor", "stop_gradient")) for key in guards or {})
        self._best_uniformity = 0.0
        self._seen: dict[str, int] = {}
        self._told: set[str] = set()
        self._absent: set[str] = set()  # at some step

    def recall(self, best_uniformity: float) -> None:
        """Takes up the best uniformity of the steps before a run was resumed: 0 where there was none."""
        self._best_uniformity = min(self._best_uniformity, best_uniformity)

    def check(self, step: int, metrics: dict) -> str | None:
        """A sentence with what is wrong at this step and what to try, or None. Missing metrics are not judged."""
        found = symptoms(metrics)
        if self.judges_spread and "uniformity" in metrics:
            now = float(metrics["uniformity"])
            self.recall(now)  # also in the grace steps: the best is at the start
            found["uniformity"] = now > LOW_SPREAD * self._best_uniformity
        self._absent |= {symptom for symptom, present in found.items() if not present}
        if step < self.grace:
            return None
        due = []
        for symptom, present in found.items():
            present = present and (step >= self.warmup or symptom in self._absent or bool(self.off))
            self._seen[symptom] = self._seen.get(symptom, 0) + 1 if present else 0
            if self._seen[symptom] >= self.patience and symptom not in self._told:
                due.append(symptom)
        self._told.update(due)
        if not due:
            return None
        sentences = " ".join(self._sentence(symptom, metrics) for symptom in due)
        return f"{self.method_name} looks collapsed at step {step}: {sentences}"

    def _sentence(self, symptom: str, metrics: dict) -> str:
        """The symptom and what to try: if a guard of this method is off, switching it on."""
        text, remedy = TEXTS[symptom]
        numbers = {name: float(metrics[name]) for name in (*TEXTS, "loss") if name in metrics}
        if self.off:
            keys = " and ".join(self.off)
            remedy = f"restoring {keys}, which {self.method_name} needs to prevent this"
        return f"{text.format(**numbers)}; try {remedy}."


def symptoms(metrics: dict) -> dict[str, bool]:
    """{symptom: whether it is present}, for each symptom that these metrics can show."""
    found = {}
    if "feature_std" in metrics:
        found["feature_std"] = float(metrics["feature_std"]) < LOW_STD
    if "rankme" in metrics:
        found["rankme"] = float(metrics["rankme"]) < LOW_RANK
    if "loss" in metrics and "uniform_loss" in metrics:
        uniform = float(metrics["uniform_loss"])
        found["uniform_loss"] = abs(float(metrics["loss"]) - uniform) <= NEAR_UNIFORM * max(1.0, abs(uniform))
    if "target_spread" in metrics:
        found["target_spread"] = float(metrics["target_spread"]) > UNIFORM_TARGET
    if "prototype_use" in metrics:
        found["prototype_use"] = float(metrics["prototype_use"]) < FEW_PROTOTYPES
    return found


def is_constant(metrics: dict) -> bool:
    """Whether all images have the same feature: such a network does not learn any more."""
    return float(metrics.get("feature_std", 1.0)) <= CONSTANT_STD


def check_finite(skipped: int, max_skipped: int, step: int, last_good=None) -> None:
    """Raises a RunError after `max_skipped` steps in a row whose loss or gradient was not finite.

    last_good: the path of the last checkpoint from before these steps, None if there is none.
    """
    if skipped < max_skipped:
        return
    place = f"the last good checkpoint is {last_good}" if last_good else "there is no checkpoint from before"
    start = f" with --config.init_from={last_good}" if last_good else ""
    raise RunError(
        f"Loss or gradient was not finite for {skipped} steps in a row, up to step {step}, and none of these steps "
        f"changed the network; {place}. Try a lower optim.base_lr or optim.clip=1.0 in a new --workdir{start}."
    )


def check_any_finite(skipped: int, made: int, step: int) -> None:
    """Raises a RunError if none of the `made` steps of this run was finite. skipped: the last ones that were not."""
    if skipped >= made:
        raise RunError(
            f"None of the {made} steps up to step {step} changed the network: loss or gradient was never finite. Look "
            "at the data (data.mean, data.std) and at what the method hides or compares, or try a lower optim.base_lr "
            "in a new --workdir."
        )
