"""The families of heads and the classes that read them; apart, so that listing loads no torch."""

from __future__ import annotations

HEADS = {
    "dflash": "specbench.models.heads.dflash.DFlashHead",
    "eagle1": "specbench.models.heads.eagle.EagleHead",
    "eagle3": "specbench.models.heads.eagle3.Eagle3Head",
    "hydra": "specbench.models.heads.hydra.HydraHead",
    "hydra_pp": "specbench.models.heads.hydra.HydraPlusHead",
    "medusa": "specbench.models.heads.medusa.MedusaHead",
    "kangaroo": "specbench.models.heads.kangaroo.KangarooHead",
}
"""The class of each family, a `specbench.models.heads.base.Head`."""
