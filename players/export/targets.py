"""Runtimes, and what each demands of a file so that it computes it with integers."""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

TargetName: TypeAlias = Literal["onnxruntime", "openvino", "tensorrt", "executorch"]
Format: TypeAlias = Literal["onnx", "pt2", "pte"]


class Broken(NamedTuple):
    """A rule that does not hold: of which layer or operation, which it is, and the option of a run that keeps it."""

    where: str
    rule: str
    option: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule} ({self.option})"


class Layout(NamedTuple):
    """How an ONNX file holds what is quantized.

    Weights of four bits and fewer are packed, two in a byte, or stored ``wide``, in int8, for which alone there are
    integer kernels. Those of 8 bits that kernels of x86 CPUs without VNNI would not add right go into uint8, for which
    ONNX Runtime has exact ones, unless ``overflow`` is left to the runtime. ``signed`` is for activations in int8, cut
    to their own range before they are rounded, and for biases that are left in float32.
    """

    wide: bool = False
    overflow: bool = False
    signed: bool = False


SMALL = Layout()


class Target(NamedTuple):
    """A runtime: what it is called, which scheme it computes with integers, how an ONNX file for it is laid out, what
    it does with layers for which its rules do not hold, and in which formats it takes networks, first its own.

    ``activations`` and ``weights`` have values of :class:`zerosum.players.Scheme`, by field.
    """

    title: str
    activations: dict[str, Any]
    weights: dict[str, Any]
    layout: Layout
    otherwise: str = "computes in float32"
    formats: tuple[Format, ...] = ("onnx",)

    def scheme(self, widest: int) -> dict[str, Any]:
        """Where no weight has more than so many bits. Those of up to six keep all rules however their grid lies: in 8
        bits there is room to have zero at 0, and for the sum of two."""
        return self.activations | (self.weights if widest > _ROOMY else {})

    def options(self, widest: int) -> str:
        """The scheme, as a run is asked for it."""
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.scheme(widest).items())


_ROOMY = 6
_EXACT = {"weight_grid": "symmetric", "weight_range": "pairwise"}

TARGETS: dict[TargetName, Target] = {
    "onnxruntime": Target("ONNX Runtime", {"sums": "quantized"}, _EXACT, Layout(wide=True)),
    "openvino": Target("OpenVINO", {"sums": "quantized"}, _EXACT, Layout(wide=True, overflow=True)),
    "tensorrt": Target(
        "TensorRT",
        {"activation_grid": "symmetric", "sums": "quantized"},
        {"weight_grid": "symmetric"},
        Layout(wide=True, overflow=True, signed=True),
        "does not take",
    ),
    "executorch": Target(
        "ExecuTorch's XNNPACK",
        {"sums": "quantized", "logits": "quantized"},
        {"weight_grid": "symmetric"},
        SMALL,
        formats=("pte", "pt2"),
    ),
}


def formats_for(target: TargetName | None) -> tuple[Format, ...]:
    """Which files a runtime takes, first its own; all, where none is named."""
    return get_args(Format) if target is None else TARGETS[target].formats
