"""Training: a pure step over a `TrainState`, and a loop that logs, evaluates, saves and resumes bit for bit."""

from jax_attention.training.checkpoints import Checkpoints
from jax_attention.training.evaluation import make_evaluate
from jax_attention.training.flops import matmul_peak, train_flops
from jax_attention.training.intervals import ConfidenceInterval, paired_difference, t_interval
from jax_attention.training.loop import FitResult, TrainingDiverged, fit
from jax_attention.training.loop_config import LoopConfig
from jax_attention.training.losses import Losses, cross_entropy, seq2seq_loss
from jax_attention.training.memory import keep_freed_memory
from jax_attention.training.metrics import MetricsFile, TensorBoard, read_metrics
from jax_attention.training.optimizers import OptimizerConfig, make_optimizer, make_schedule, refuse_nonfinite
from jax_attention.training.parallel import check_divides, data_mesh, replicate, split_rows
from jax_attention.training.progress import Meter, Progress, progress
from jax_attention.training.quality import Rouge, bleu, exact_match, rouge, token_accuracy
from jax_attention.training.step import (
    TrainState,
    evaluate_step,
    init_state,
    language_model_loss,
    make_train_step,
)

__all__ = [
    "Checkpoints",
    "ConfidenceInterval",
    "FitResult",
    "LoopConfig",
    "Losses",
    "Meter",
    "MetricsFile",
    "OptimizerConfig",
    "Progress",
    "Rouge",
    "TensorBoard",
    "TrainState",
    "TrainingDiverged",
    "bleu",
    "check_divides",
    "cross_entropy",
    "data_mesh",
    "evaluate_step",
    "exact_match",
    "fit",
    "init_state",
    "keep_freed_memory",
    "language_model_loss",
    "make_evaluate",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "matmul_peak",
    "paired_difference",
    "progress",
    "read_metrics",
    "refuse_nonfinite",
    "replicate",
    "rouge",
    "seq2seq_loss",
    "split_rows",
    "t_interval",
    "token_accuracy",
    "train_flops",
]
