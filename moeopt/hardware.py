"""GPUs and links by the figures of their vendors' data sheets."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Gpu:
    """A GPU, by its data sheet.

    | field | holds |
    |---|---|
    | name | as in `GPUS` |
    | bf16_flops, fp8_flops | dense tensor operations per second, without sparsity; None: not offered |
    | memory_bandwidth | bytes per second |
    | memory_bytes | capacity |
    | fabrics | (name, bytes per second and direction) of each way to the other GPUs of a node |
    | source | the data sheet |
    """

    name: str
    bf16_flops: float
    fp8_flops: float | None
    memory_bandwidth: float
    memory_bytes: float
    fabrics: tuple[tuple[str, float], ...]
    source: str

    def flops(self, compute: str) -> float:
        """Dense operations per second in bf16 or fp8; ValueError where there are none."""
        if compute not in ("bf16", "fp8"):
            raise ValueError(f"compute must be bf16 or fp8, found {compute!r}")
        if compute == "fp8" and self.fp8_flops is None:
            raise ValueError(f"{self.name} does not compute in fp8, it computes in bf16")
        return self.fp8_flops if compute == "fp8" and self.fp8_flops is not None else self.bf16_flops


@dataclass(frozen=True)
class Link:
    """How GPUs reach each other.

    | field | holds |
    |---|---|
    | name | as in `LINKS`: fabric within a node, then network beyond |
    | near | the fabric, one of the GPU's |
    | far_bandwidth | bytes per second and direction of one network port, one port for each GPU |
    """

    name: str
    near: str
    far_bandwidth: float

    def near_bandwidth(self, gpu: Gpu) -> float:
        """Bytes per second and direction of one GPU within its node; ValueError where it has no such fabric."""
        fabrics = dict(gpu.fabrics)
        if self.near not in fabrics:
            raise ValueError(f"link {self.name}: {gpu.name} has no {self.near}, it has {', '.join(fabrics)}")
        return fabrics[self.near]


# A x16 slot carries 16 x 16 Gbit/s (generation 4) or 16 x 32 Gbit/s (generation 5) each way; data sheets double it.
PCIE4, PCIE5 = ("pcie", 32e9), ("pcie", 64e9)

# Data sheets give tensor figures with sparsity, twice the dense ones below, and links in both directions together.
GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        known.name: known
        for known in (
            Gpu(
                "a100-80gb",
                312e12,
                None,
                2.039e12,
                80e9,
                (("nvlink", 300e9), PCIE4),
                "NVIDIA A100 Tensor Core GPU data sheet, A100 80GB SXM: 624 TFLOPS bf16 sparse, NVLink 600 GB/s",
            ),
            Gpu(
                "h100-sxm",
                989.5e12,
                1979e12,
                3.35e12,
                80e9,
                (("nvlink", 450e9), PCIE5),
                "NVIDIA H100 Tensor Core GPU data sheet, H100 SXM: 1,979 TFLOPS bf16 sparse, NVLink 900 GB/s",
            ),
            Gpu(
                "h200",
                989.5e12,
                1979e12,
                4.8e12,
                141e9,
                (("nvlink", 450e9), PCIE5),
                "NVIDIA H200 Tensor Core GPU data sheet, H200 SXM: 1,979 TFLOPS bf16 sparse, NVLink 900 GB/s",
            ),
            Gpu(
                "b200",
                2.25e15,
                4.5e15,
                7.7e12,
                180e9,
                (("nvlink", 900e9), PCIE5),
                "NVIDIA Blackwell data sheet, HGX B200: 4.5 PFLOPS bf16 sparse, NVLink 1.8 TB/s; DGX B200: 8 TB/s",
            ),
            Gpu(
                "mi300x",
                1307.4e12,
                2614.9e12,
                5.3e12,
                192e9,
                (("xgmi", 448e9), PCIE5),
                "AMD Instinct MI300X data sheet: dense figures; 7 Infinity Fabric links of 128 GB/s",
            ),
            Gpu(
                "l40s",
                362.05e12,
                733e12,
                864e9,
                48e9,
                (PCIE4,),
                "NVIDIA L40S data sheet: 362.05 TFLOPS bf16 dense, PCIe Gen4 x16 64 GB/s, no NVLink",
            ),
        )
    }
)

# Signalling rates of one port: InfiniBand HDR 200, NDR 400, XDR 800 Gbit/s; RoCE over 400 Gbit/s Ethernet.
NETWORKS: Mapping[str, float] = MappingProxyType(
    {"ib-hdr": 25e9, "ib-ndr": 50e9, "ib-xdr": 100e9, "roce-400": 50e9}
)
LINKS: Mapping[str, Link] = MappingProxyType(
    {
        f"{near}-{network}": Link(f"{near}-{network}", near, bandwidth)
        for near in ("nvlink", "xgmi", "pcie")
        for network, bandwidth in NETWORKS.items()
    }
)


def named_gpu(name: str) -> Gpu:
    """The GPU of this name, in any case; ValueError lists the known names."""
    if (known := GPUS.get(name.lower())) is None:
        raise ValueError(f"no GPU is named {name!r}; known are {', '.join(GPUS)}")
    return known


def named_link(name: str) -> Link:
    """The link of this name, in any case; ValueError lists the known names."""
    if (known := LINKS.get(name.lower())) is None:
        raise ValueError(f"no link is named {name!r}; known are {', '.join(LINKS)}")
    return known
