"""`lco sample DIR --prompt TEXT`: models of this machine, without the platform. Completions go to standard output."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import ValidationError

from evaluation.records import sound
from evaluation.sample import SampleRow, completed, places
from evaluation.sample_config import SampleConfig, SamplePolicy
from evaluation.sample_options import add_options, asked, told
from lco.optimal_policy import load_decodable
from lco.run_directory import outputs
from lco.stage import EXIT_USER


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="lco sample", description="Print what models of this machine say to a few prompts, without the platform."
    )
    add_options(parser)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs")
    options = parser.parse_args(arguments)
    try:
        wanted = asked(options)
        directories = [_model_in(name) for name in wanted.policies]
        config = SampleConfig(
            policies=[SamplePolicy(policy=path) for path in directories],
            device=options.device,
            **wanted.fields,
        )
        rows = _sampled(config)
    except ValidationError as error:
        for each in error.errors():
            print(f"lco sample: {'.'.join(map(str, each['loc']))}: {each['msg']}", file=sys.stderr)
        return EXIT_USER
    except (ValueError, OSError) as error:
        print(f"lco sample: {error}", file=sys.stderr)
        return EXIT_USER
    if options.json:
        print(json.dumps(sound([asdict(row) for row in rows]), indent=2))
    else:
        print(told(config.prompts, wanted.policies, rows))
    return 0


def _model_in(name: str) -> str:
    directory = Path(name)
    if not directory.is_dir():
        raise ValueError(f"{name}: is no directory, as the first one is; the platform's names need all to be its own")
    return str(outputs(directory).get("model", directory))  # a run's directory stands for the model that it made


def _sampled(config: SampleConfig) -> list[SampleRow]:
    torch.set_num_threads(config.threads)
    rows = []
    for number, one in enumerate(config.policies):
        policy = load_decodable(one.policy, config)
        for some in completed(policy, config, list(places(config, number))):
            rows += some
    return rows


if __name__ == "__main__":
    sys.exit(main())
