"""Finds the networks in a file: behind which key and prefix each lies, and by which scheme its tensors are named."""

import re
from typing import NamedTuple

from jax_ssl.errors import UserError
from jax_ssl.weights import strangers
from jax_ssl.weights.families import FAMILIES, SCHEMES
from jax_ssl.weights.read import File, Tensor, networks
from jax_ssl.weights.rules import Rule, Scheme

# Haiku keeps parameters and state of a network apart.
HAIKU = re.compile(r"(online|target)_(?:params|state)(?=\.)")
WRAPPED = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
NAMES = {  # what papers and libraries call the same two
    "student": {"student", "online", "online_network", "online_encoder", "encoder_q", "base_encoder", "backbone"},
    "teacher": {"teacher", "target", "target_network", "target_encoder", "encoder_k", "momentum_encoder",
                "momentum_backbone", "model_ema", "ema_model", "state_dict_ema", "ema"},
}  # fmt: skip


class Found(NamedTuple):
    """A network of a file.

    label: its key and prefix; inside: {name behind the prefix: tensor}; outside: what lies beside it, by whole names.
    """

    label: str
    scheme: Scheme
    inside: dict
    outside: dict

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules for these names, and those of the parts that the file has."""
        rules = self.scheme.rules if isinstance(self.scheme.rules, tuple) else self.scheme.rules(self.inside)
        names = [*self.inside, *self.outside]
        holds = lambda pattern: any(re.fullmatch(pattern, name) for name in names)
        there = (part for part in self.scheme.parts if holds(part.sign) and not holds(part.without))
        return rules + tuple(rule for part in there for rule in part.rules)

    def sorted(self) -> tuple[dict, list[str], list[str]]:
        """(tensors for the rules, names that are ignored by declaration, names of other parts of the checkpoint)."""
        ignored = [name for name in self.inside if re.fullmatch(self.scheme.ignored, name)]
        patterns = [re.compile(rule.pattern) for rule in self.rules]
        known = lambda name: any(pattern.fullmatch(name) for pattern in patterns)
        ignored = [name for name in ignored if not known(name)]
        tensors = {name: tensor for name, tensor in self.inside.items() if name not in set(ignored)}
        beside = {name: t for name, t in self.outside.items() if name not in self.inside and known(name)}
        return tensors | beside, ignored, [name for name in self.outside if name not in beside]


def plain(name: str) -> str:
    """The name without what wraps a network in torch, and with dots where TensorFlow and Haiku have slashes."""
    return HAIKU.sub(r"\1", WRAPPED.sub("", name.replace("/", ".")))


def plainly_named(file: File) -> dict[str, dict[str, Tensor]]:
    """{where: {plain name: Tensor}} for every dict of tensors in a file."""
    there = networks(file.tree)
    return {where: {plain(name): tensor for name, tensor in tensors.items()} for where, tensors in there.items()}


def find(there: dict[str, dict[str, Tensor]], schemes: tuple[Scheme, ...] = SCHEMES) -> list[Found]:
    """All networks whose names follow one of the schemes. there: of `plainly_named`.

    Dicts of tensors that are no network, such as a loss with its center, lie beside each network by their whole names.
    """
    found, loose = [], {}
    for where, tensors in there.items():
        taken = {}
        for scheme in schemes:
            sign = re.compile(rf"((?:[^.]+\.)*?){scheme.sign}")
            prefixes = dict.fromkeys(match[1] for match in map(sign.fullmatch, tensors) if match)
            for prefix in prefixes:
                inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                excluded = any(re.fullmatch(scheme.without, name) for name in inside)
                if prefix not in taken and re.fullmatch(scheme.prefix, prefix) and not excluded:
                    outside = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
                    taken[prefix] = Found(".".join(filter(None, (where, prefix[:-1]))), scheme, inside, outside)
        found += taken.values()
        loose |= {} if taken else {f"{where}.{name}": tensor for name, tensor in tensors.items()}
    return [one._replace(outside=loose | one.outside) for one in found]


def schemes_of(family: str | None) -> tuple[Scheme, ...]:
    """The schemes of a family, with what it knows of its networks; all schemes for None. Raises UserError."""
    if family is None:
        return SCHEMES
    if family not in FAMILIES:
        raise UserError(f"There is no family {family!r} of files: the known ones are {', '.join(FAMILIES)}.")
    schemes, pixels, heads, model = FAMILIES[family]
    return tuple(
        s._replace(pixels=pixels or s.pixels, heads=s.heads | heads, model=s.model | model, question="")
        for s in schemes
    )


def choose(file: File, which: str | None, schemes: tuple[Scheme, ...] = SCHEMES) -> Found:
    """The only network of a file, or the one called `which`: its label, a part of that, "student" or "teacher"."""
    there = plainly_named(file)
    found, which = find(there, schemes), which or file.which
    everything = {name: tensor for tensors in there.values() for name, tensor in tensors.items()}
    strangers.refuse(file.path, everything, alone=not found)
    if not found:
        names = list(everything)
        some, known = (name[:60] for name in sorted(names)[:3]), dict.fromkeys(s.name for s in schemes)
        if not names:
            raise UserError(f"{file.path} holds no tensors by name: take the file of a pretrained network.")
        raise UserError(
            f"{file.path} has unknown names of tensors ({', '.join(some)}, ...): the known naming schemes are "
            f"{', '.join(known)}."
        )
    ways = ({which}, NAMES.get(which, set()))
    called = ([f for f in found if names_of(f.label) & names] for names in ways)
    exact = [f for f in found if which in (None, f.label)]
    wanted = exact or next(filter(None, called), [])
    if len(wanted) == 1:
        return wanted[0]
    labels = ", ".join(repr(f.label) for f in found[:9])
    if which is None:
        raise UserError(
            f"{file.path} holds {len(found)} networks, {labels}: choose one, such as which={found[0].label}."
        )
    raise UserError(f"{file.path} holds these networks: {labels}, so which={which!r} cannot be loaded.")


def names_of(label: str) -> set[str]:
    """The label's ends and parts by which it may be called."""
    pieces = label.split(".")
    return set(pieces) | {".".join(pieces[i:]) for i in range(len(pieces))}
