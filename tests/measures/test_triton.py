"""The Triton kernel: on a CPU in Triton's interpreter, held to the rows one by one; and made into code of two cards.

`make test-all` runs both, each in a process of its own that finds the package triton.
"""

import subprocess

import pytest
import torch

from tests.measures.test_together import KINDS, WITHIN, assert_same, layer, windows_of

FEW = ["windows/rules=[fixed,top_p]", "windows.fixed=[1,64,1500,100000]", "windows.top_p=[0.5,0.001]"]
POINTERS = {"p": "fp64", "order": "i64", "start": "i64", "stop": "i64", "mass": "fp64", "square": "fp64"}
NUMBERS = ("keys", "bags", "rows_of_group", "width", "stride_g", "stride_n")


@pytest.mark.interpreted
@pytest.mark.parametrize(("kind", "keys"), [("plain", 1), ("causal", 2500), *((kind, 300) for kind in KINDS)])
def test_sums_of_the_kernel_are_those_of_the_rows_one_by_one(kind, keys):
    assert_same(KINDS[kind](keys), windows_of(*FEW), triton=True)


@pytest.mark.interpreted
def test_it_is_the_kernel_that_adds_up(monkeypatch):
    from experiments.batched import triton_sums

    def failing(*_):
        raise ArithmeticError

    monkeypatch.setattr(triton_sums, "window_sums", failing)
    with pytest.raises(ArithmeticError):
        assert_same(layer(30), windows_of(*FEW), triton=True)


@pytest.mark.interpreted
@pytest.mark.parametrize("width", [1, 20, 65])
def test_values_may_have_any_width_and_lie_anywhere(width):
    groups = [
        rows.__class__(**(vars(rows) | {"value_NV": value_NV}))
        for rows, value_NV in zip(layer(70), torch.randn(70, 3, 2 * width).half()[..., ::2].unbind(1), strict=True)
    ]
    assert_same(groups, windows_of(*FEW), WITHIN, triton=True)


@pytest.mark.compiled
@pytest.mark.parametrize("width", [64, 128, 256])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("capability", [80, 90])
def test_it_compiles_for_cards_and_spills_at_most_a_word_or_two(capability, dtype, width, tmp_path):
    """A100 and H100: what ptxas reserves beside registers, without any card."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from experiments.batched import triton_sums

    pointers = {f"{name}_ptr": f"*{kind}" for name, kind in (POINTERS | {"value": dtype, "output": "fp64"}).items()}
    constants = {"stride_v": 1, "KEYS": triton_sums.KEYS, "WIDTH": width}
    of = pointers | dict.fromkeys(NUMBERS, "i32") | dict.fromkeys(constants, "constexpr")
    signature = {name: of[name] for name in triton_sums._sum_bag.arg_names}
    source = ASTSource(triton_sums._sum_bag, signature=signature, constexprs=constants)
    code = triton.compile(source, target=GPUTarget("cuda", capability, 32)).asm
    (tmp_path / "sum_bag.cubin").write_bytes(code["cubin"])
    tool = triton.knobs.nvidia.cuobjdump.path
    used = subprocess.run([tool, "-res-usage", tmp_path / "sum_bag.cubin"], check=True, capture_output=True, text=True)
    (line,) = [line for line in used.stdout.splitlines() if "REG:" in line]
    numbers = {name: int(number) for name, number in (word.split(":") for word in line.split() if ":" in word)}
    assert numbers["LOCAL"] == 0
    assert numbers["STACK"] <= 16  # bytes of a thread
    assert numbers["REG"] <= 168  # three programs of 128 threads share the 65,536 registers of a multiprocessor
