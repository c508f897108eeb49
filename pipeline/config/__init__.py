"""Typed, frozen run configuration: one module a stage's section, every field with its unit."""

from pipeline.config.audit import AuditConfig
from pipeline.config.evaluate import EvaluateConfig
from pipeline.config.generate import Asked, GenerateConfig
from pipeline.config.ingest import IngestConfig, QueryConfig
from pipeline.config.load import config_of, load_config, shipped
from pipeline.config.release import ReleaseConfig
from pipeline.config.review import ReviewConfig
from pipeline.config.run import Config
from pipeline.config.shadows import ShadowsConfig
from pipeline.config.stress import StressConfig
from pipeline.config.train import TrainConfig

__all__ = [
    "Asked",
    "AuditConfig",
    "Config",
    "EvaluateConfig",
    "GenerateConfig",
    "IngestConfig",
    "QueryConfig",
    "ReleaseConfig",
    "ReviewConfig",
    "ShadowsConfig",
    "StressConfig",
    "TrainConfig",
    "config_of",
    "load_config",
    "shipped",
]
