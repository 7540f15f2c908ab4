"""The command line: list, train, sample, demo."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from examples import registry
from examples.errors import UsageError, unknown_name

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
TRAIN_OPTIONS = {
    "data": (str, "data set (python -m examples list); default digits"),
    "data_dir": (str, "folder of local data files; default $GENKERN_DATA"),
    "steps": (int, "training steps at most"),
    "batch_size": (int, "items in a batch, over all processes"),
    "lr": (float, "learning rate of Adam"),
    "beta1": (float, "first momentum of Adam"),
    "weight_decay": (float, "weight decay of Adam"),
    "clip_norm": (float, "largest gradient norm of a player"),
    "ema_decay": (float, "decay of the averaged weights"),
    "eval_every": (int, "steps between validations; 0: never"),
    "patience": (int, "validations without improvement before the end; 0: no early end"),
    "checkpoint_every": (int, "steps between checkpoints; 0: only at the end"),
    "sample_every": (int, "steps between sample pictures; 0: never"),
    "seed": (int, "of weights, data order and noise"),
    "precision": (str, "no, bf16 or fp16 (mixed)"),
    "device": (str, "auto or cpu"),
}


class Parser(argparse.ArgumentParser):
    """Lists the valid options when one is unknown."""

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            flags = [f for a in self._actions for f in a.option_strings if f.startswith("--")]
            bad = next((text for text in unknown if text.startswith("-")), unknown[0])
            raise unknown_name(f"argument of {self.prog}", bad.partition("=")[0], flags)
        return namespace, unknown


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m examples", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help="models, their options, and data sets")

    train = commands.add_parser("train", help="train a model", allow_abbrev=False)
    train.add_argument("model")
    for name, (kind, text) in TRAIN_OPTIONS.items():
        flag = "--" + name.replace("_", "-")
        train.add_argument(flag, dest=name, type=kind, default=argparse.SUPPRESS, help=text)
    train.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="NAME=VALUE",
        help="options of the model, e.g. hidden=64",
    )
    train.add_argument("--out", type=Path, help="run directory; default runs/MODEL")
    train.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")

    sample = commands.add_parser("sample", help="sample a trained model", allow_abbrev=False)
    sample.add_argument("model")
    sample.add_argument("--run", type=Path, help="run directory; default runs/MODEL")
    sample.add_argument("--num", type=int, default=64, help="number of samples; default 64")
    sample.add_argument("--temperature", type=float, default=1.0, help="default 1")
    sample.add_argument("--seed", type=int, default=0, help="default 0")
    sample.add_argument("--out", type=Path, help="PNG file; default RUN/samples.png")

    demo = commands.add_parser("demo", help="train four models; write a report", allow_abbrev=False)
    demo.add_argument("--out", type=Path, default=Path("runs/demo"), help="default runs/demo")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    try:
        args = build_parser().parse_args(argv)
        return COMMANDS[args.command](args)
    except UsageError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED


def run_list(args: argparse.Namespace) -> int:
    from examples.data import DATASETS
    from examples.harness.config import model_options

    print("models (python -m examples train NAME --set OPTION=VALUE)")
    for name in registry.MODELS:
        document = registry.model_class(name).__doc__ or ""
        options = " ".join(f"{key}={value}" for key, value in model_options(name).items())
        print(f"  {name:12} {document.strip().splitlines()[0]}\n  {'':12}   {options}")
    print("\ndata sets (--data NAME)")
    for name, loader in sorted(DATASETS.items()):
        print(f"  {name:12} {(loader.__doc__ or '').strip().splitlines()[0]}")
    return 0


def run_train(args: argparse.Namespace) -> int:
    from examples import data
    from examples.harness import checkpoint
    from examples.harness.config import TrainConfig, parse_options
    from examples.harness.recorder import shown
    from examples.harness.trainer import Trainer

    registry.entry(args.model)
    out = args.out or Path("runs") / args.model
    given = {name: getattr(args, name) for name in TRAIN_OPTIONS if hasattr(args, name)}
    if args.set:
        given["options"] = parse_options(args.model, args.set)
    state = None
    if args.resume:
        state = checkpoint.load(out / checkpoint.FILE_NAME)
        config = TrainConfig(**state["config"]).resumed({"model": args.model, **given})
    else:
        config = TrainConfig.for_model(args.model, **given)
    trainer = Trainer(config, data.load(config.data, config.data_dir), out, resume_from=state)
    trainer.train()
    model = trainer.chosen_model()
    if model.likelihood and trainer.accelerator.is_main_process and not trainer.interrupted:
        print(f"Test: {shown(model, trainer.evaluate('test', model))}")
    # Without this, gloo's threads are still running when the interpreter ends.
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.end_training()
    return EXIT_INTERRUPTED if trainer.interrupted else 0


def run_sample(args: argparse.Namespace) -> int:
    from examples.harness import checkpoint, images

    registry.entry(args.model)
    run = args.run or Path("runs") / args.model
    if args.num < 1:
        raise UsageError(f"--num must be at least 1; got {args.num}")
    model = checkpoint.load_model(args.model, run / checkpoint.FILE_NAME)
    generator = torch.Generator().manual_seed(args.seed)
    out = args.out or run / "samples.png"
    images.save(model.sample(args.num, generator, args.temperature), model.spec, out)
    print(f"Wrote {args.num} samples to {out}")
    return 0


def run_demo(args: argparse.Namespace) -> int:
    from examples.demo.run import demo

    return demo(args.out)


COMMANDS = {"list": run_list, "train": run_train, "sample": run_sample, "demo": run_demo}
