"""Models whose structure is known: the NumPy model equals an independent PyTorch model that loads the same tensors."""

import numpy as np
import pytest

import lqo_mor as lqo
from lqo_mor.errors import CheckpointError

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional


class Diagonal(nn.Module):
    """S4D kernel, convolution and skip, on (batch, features, time), computed by sums over the slots."""

    def __init__(self, width, slots):
        super().__init__()
        self.D = nn.Parameter(torch.randn(width))
        self.kernel = nn.Module()
        self.kernel.C = nn.Parameter(torch.randn(width, slots, 2))
        self.kernel.log_dt = nn.Parameter(torch.randn(width) * 0.3 - 2)
        self.kernel.log_A_real = nn.Parameter(torch.randn(width, slots) * 0.3 - 0.7)
        self.kernel.A_imag = nn.Parameter(torch.randn(width, slots) * 3)

    def forward(self, u):
        A = -torch.exp(self.kernel.log_A_real) + 1j * self.kernel.A_imag
        z = A * torch.exp(self.kernel.log_dt)[:, None]
        C = torch.view_as_complex(self.kernel.C) * (torch.exp(z) - 1) / A
        powers = torch.exp(z[:, :, None] * torch.arange(u.shape[-1]))
        kernel = 2 * torch.einsum("hn,hnl->hl", C, powers).real
        y = torch.stack(
            [torch.einsum("bhj,hj->bh", u[..., : k + 1].flip(-1), kernel[:, : k + 1]) for k in range(u.shape[-1])], -1
        )
        return y + self.D[:, None] * u


class Layer(nn.Module):
    """The system, GELU, a linear map and the gated linear unit."""

    def __init__(self, width, slots, deeper, conv, gate=True):
        super().__init__()
        if deeper:
            self.layer = Diagonal(width, slots)
        else:
            inner = Diagonal(width, slots)
            self.D, self.kernel = inner.D, inner.kernel
        rows = 2 * width if gate else width
        mapping = nn.Conv1d(width, rows, 1) if conv else nn.Linear(width, rows)
        self.output_linear = nn.Sequential(mapping)
        self.deeper, self.conv, self.gate = deeper, conv, gate

    def forward(self, u):
        y = F.gelu(self.layer(u) if self.deeper else Diagonal.forward(self, u))
        y = self.output_linear(y) if self.conv else self.output_linear(y.transpose(1, 2)).transpose(1, 2)
        return F.glu(y, dim=1) if self.gate else y


def over_time(norm, x):
    return norm(x) if isinstance(norm, nn.BatchNorm1d) else norm(x.transpose(1, 2)).transpose(1, 2)


class Example(nn.Module):
    def __init__(self, deeper, conv, prenorm, batch_norm=False, n_layers=2, width=4, slots=3, gate=True):
        super().__init__()
        self.encoder, self.decoder, self.prenorm = nn.Linear(2, width), nn.Linear(width, 3), prenorm
        self.s4_layers = nn.ModuleList(Layer(width, slots, deeper, conv, gate) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.LayerNorm(width) for _ in range(n_layers))

    def forward(self, u):
        x = self.encoder(u).transpose(1, 2)
        for layer, norm in zip(self.s4_layers, self.norms, strict=True):
            if self.prenorm:
                x = x + layer(over_time(norm, x))
            else:
                x = over_time(norm, x + layer(x))
        return self.decoder(x.mean(-1))


class Named(nn.Module):
    """A module under a name, as the framework nests them."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


class Framework(nn.Module):
    def __init__(self, deeper, prenorm, tokens=False, batch_norm=False, n_layers=2, width=4, slots=3, pooling="mean"):
        super().__init__()
        self.encoder = nn.Sequential(nn.Embedding(7, width) if tokens else nn.Linear(2, width))
        make = nn.BatchNorm1d if batch_norm else nn.LayerNorm
        blocks = [Named(layer=Layer(width, slots, deeper, not deeper), norm=Named(norm=make(width))) for _ in range(n_layers)]
        self.model = Named(layers=nn.ModuleList(blocks))
        if prenorm:
            self.model.norm = Named(norm=make(width))
        self.decoder = nn.Sequential(Named(output_transform=nn.Linear(width, 3)))
        self.prenorm, self.pooling = prenorm, pooling

    def forward(self, u):
        x = self.encoder(u).transpose(1, 2)
        for block in self.model.layers:
            if self.prenorm:
                x = x + block.layer(over_time(block.norm.norm, x))
            else:
                x = over_time(block.norm.norm, x + block.layer(x))
        if self.prenorm:
            x = over_time(self.model.norm.norm, x)
        x = x.mean(-1) if self.pooling == "mean" else x[..., -1] if self.pooling == "last" else x.transpose(1, 2)
        return self.decoder[0].output_transform(x)


def settled(net, inputs):
    """Double precision, with running statistics that are not those of the start."""
    torch.manual_seed(0)
    net = net.double()
    for parameter in net.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    net.train()(inputs)
    return net.eval()


def inputs_of(tokens=False):
    torch.manual_seed(1)
    return torch.randint(0, 7, (3, 20)) if tokens else torch.randn(3, 20, 2, dtype=torch.float64)


CASES = {
    "example, one level deeper": (lambda: Example(True, False, False), {}, False),
    "example, pre-norm": (lambda: Example(True, True, True), {"prenorm": True}, False),
    "example, batch norm": (lambda: Example(True, True, False, batch_norm=True), {}, False),
    "example, no gate": (lambda: Example(True, True, False, gate=False), {}, False),
    "framework, post-norm": (lambda: Framework(True, False), {}, False),
    "framework, pre-norm with tokens": (lambda: Framework(True, True, tokens=True), {}, True),
    "framework, old layout": (lambda: Framework(False, True), {}, False),
    "framework, batch norm, no pooling": (lambda: Framework(True, True, batch_norm=True, pooling=None), {"pooling": None}, False),
    "framework, last step": (lambda: Framework(True, False, pooling="last"), {"pooling": "last"}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_model_equals_that_of_pytorch(case, tmp_path):
    make, settings, tokens = CASES[case]
    inputs = inputs_of(tokens)
    net = settled(make(), inputs)
    torch.save({"state_dict": net.state_dict(), "epoch": 1}, tmp_path / "net.ckpt")
    model = lqo.load_checkpoint(tmp_path / "net.ckpt", settings=settings)
    with torch.no_grad():
        expected = net(inputs).numpy()
    assert model.runs
    np.testing.assert_allclose(model(inputs.numpy()), expected, rtol=1e-10, atol=1e-10)
    assert model.n_parameters == sum(v.numel() for v in net.state_dict().values() if v.is_floating_point())


@pytest.mark.parametrize("case", CASES)
def test_a_smaller_model_loads_strictly(case, tmp_path):
    make, settings, tokens = CASES[case]
    inputs = inputs_of(tokens)
    torch.save({"state_dict": settled(make(), inputs).state_dict()}, tmp_path / "net.ckpt")
    small = lqo.compress(lqo.load_checkpoint(tmp_path / "net.ckpt", settings=settings), state_size=4).model
    small.save(tmp_path / "small.ckpt")
    shrunk = make()
    for module in shrunk.modules():
        if hasattr(module, "kernel"):
            for name in ("C", "log_A_real", "A_imag"):
                setattr(module.kernel, name, nn.Parameter(getattr(module.kernel, name)[:, :2]))
    shrunk = shrunk.double()
    shrunk.load_state_dict(torch.load(tmp_path / "small.ckpt", weights_only=True)["state_dict"], strict=True)
    with torch.no_grad():
        expected = shrunk.eval()(inputs).numpy()
    np.testing.assert_allclose(small(inputs.numpy()), expected, rtol=1e-9, atol=1e-9)
    again = lqo.load_checkpoint(tmp_path / "small.ckpt")  # the file beside it says how the blocks are built
    assert again.source.assumed == {} and again.runs
    np.testing.assert_allclose(again(inputs.numpy()), expected, rtol=1e-9, atol=1e-9)


def test_refitted_maps_are_written(tmp_path):
    net = settled(Framework(True, False), inputs_of())
    torch.save(net.state_dict(), tmp_path / "net.pth")
    model = lqo.load_checkpoint(tmp_path / "net.pth")
    inputs = np.random.default_rng(2).normal(size=(64, 32, 2))
    small = lqo.compress(model, state_size=4, calibration=inputs).model
    assert any(a.mixing is not b.mixing for a, b in zip(small.blocks, model.blocks, strict=True))
    small.save(tmp_path / "small.pth")
    np.testing.assert_allclose(lqo.load_checkpoint(tmp_path / "small.pth")(inputs), small(inputs), rtol=1e-9, atol=1e-9)


def test_what_else_is_there_makes_the_structure_unknown(tmp_path):
    state = Framework(True, False).state_dict()
    torch.save(state | {"model.layers.0.residual.scale": torch.ones(4)}, tmp_path / "net.pth")
    model = lqo.load_checkpoint(tmp_path / "net.pth")
    assert not model.runs and len(model.blocks) == 2
    with pytest.raises(lqo.LQOError, match="only the systems"):
        model(np.zeros((1, 4, 2)))
    with pytest.raises(lqo.LQOError, match="needs the whole model"):
        lqo.output_error_bound(model, model, horizon=8)


def test_a_final_norm_belongs_to_pre_norm(tmp_path):
    torch.save(Framework(True, True).state_dict(), tmp_path / "net.pth")
    assert lqo.load_checkpoint(tmp_path / "net.pth").blocks[0].prenorm
    with pytest.raises(CheckpointError, match="pre-norm"):
        lqo.load_checkpoint(tmp_path / "net.pth", settings={"prenorm": False})
