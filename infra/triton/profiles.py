"""Makes the model repository of a profile from the one in this folder.

    python -m infra.triton.profiles cpu|gpu DIRECTORY [--overrides DIRECTORY]

`model_repository/` is the profile `cpu` as it stands. What another profile changes are its overrides in `profiles/<profile>/`,
named `<model>.pbtxt`: a part of a model configuration in which each field that is set takes the place of the whole field in the
source, `parameters` key by key. An operator's own, for a machine of another size, are applied last. All are parsed by Triton's
own description of a configuration, so that what is misspelt is refused here and not by a server.
Comments are not carried over: they are in the source.
"""

import argparse
import shutil
import sys
from pathlib import Path

from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from infra.triton.server import MODEL_REPOSITORY, TRITON

OVERRIDES = TRITON / "profiles"
PROFILES = ("cpu", "gpu")
CONFIGURATION = "config.pbtxt"
KINDS = (ModelInstanceGroup.KIND_CPU, ModelInstanceGroup.KIND_GPU)


class Unfit(ValueError):
    """A configuration that must not be served. The message says which and why."""


def configurations(profile: str, *further: Path, repository: Path = MODEL_REPOSITORY) -> dict[str, ModelConfig]:
    """The configuration of every model, by name. `further` are directories of overrides beside the profile's. Raises Unfit."""
    if profile not in PROFILES:
        raise Unfit(f"there is no profile {profile}, only {', '.join(PROFILES)}")
    found = {path.parent.name: _parse(path) for path in sorted(repository.glob(f"*/{CONFIGURATION}"))}
    for path in sorted((OVERRIDES / profile).glob("*.pbtxt")):
        # Ours may be for a model that this repository was made without.
        if path.stem in found:
            _override(found[path.stem], _parse(path))
    for directory in further:
        if not directory.is_dir():
            raise Unfit(f"{directory} is no directory")
        for path in sorted(directory.glob("*.pbtxt")):
            if path.stem not in found:
                raise Unfit(f"{path}: there is no model {path.stem}, only {', '.join(found)}")
            _override(found[path.stem], _parse(path))
    for name, configuration in found.items():
        if missing := problems(name, configuration):
            raise Unfit(f"{profile}: {name}: {'; '.join(missing)}")
    return found


def problems(name: str, configuration: ModelConfig) -> list[str]:
    """What keeps a configuration from being served as it should be."""
    found = []
    if configuration.name != name:
        found.append(f"its name is {configuration.name or 'not stated'}")
    if not configuration.input or not configuration.output:
        found.append("inputs or outputs are not stated, and the server is told not to ask the model")
    if not configuration.instance_group:
        found.append("no instance_group: how many run, and where, is not left to the machine")
    if any(group.kind not in KINDS or group.count < 1 for group in configuration.instance_group):
        found.append("an instance group has neither KIND_CPU nor KIND_GPU, or no count")
    if not configuration.model_warmup:
        found.append("no model_warmup: the first wearer after a start would wait for it")
    if configuration.response_cache.enable:
        found.append(
            "response_cache: a cache keeps pictures' answers beyond their request, and those of a matcher that was replaced"
        )
    if _has_queue_policy(configuration):
        found.append("a queue policy: requests sleep half a second in the queue of an idle model (benchmarks/triton_queue.py)")
    return found


def _has_queue_policy(configuration: ModelConfig) -> bool:
    batching = configuration.dynamic_batching
    policies = [batching.default_queue_policy, *batching.priority_queue_policy.values()]
    limits = any(
        policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override for policy in policies
    )
    return limits or batching.priority_levels > 0


def render(profile: str, directory: Path, *further: Path, repository: Path = MODEL_REPOSITORY) -> list[str]:
    """Writes the profile's model repository to `directory`, which must not exist or be empty. Returns the models' names."""
    if directory.exists() and any(directory.iterdir()):
        raise Unfit(f"{directory} is not empty")
    rendered = configurations(profile, *further, repository=repository)
    for name, configuration in rendered.items():
        shutil.copytree(repository / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", CONFIGURATION))
        (directory / name / CONFIGURATION).write_text(text_format.MessageToString(configuration, as_utf8=True))
    return list(rendered)


def _parse(path: Path) -> ModelConfig:
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except text_format.ParseError as error:
        raise Unfit(f"{path}: {error}") from error


def _override(configuration: ModelConfig, override: ModelConfig) -> None:
    for key, parameter in override.parameters.items():
        configuration.parameters[key].CopyFrom(parameter)
    for field, _ in override.ListFields():
        if field.name != "parameters":
            configuration.ClearField(field.name)
    rest = ModelConfig()
    rest.CopyFrom(override)
    rest.ClearField("parameters")
    configuration.MergeFrom(rest)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infra.triton.profiles", description="Write a profile's model repository.")
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("directory", type=Path, help="a directory that is empty or does not exist")
    parser.add_argument(
        "--overrides", type=Path, metavar="DIRECTORY", action="append", default=[], help="MODEL.pbtxt of your own"
    )
    arguments = parser.parse_args()
    try:
        names = render(arguments.profile, arguments.directory, *arguments.overrides)
    except (Unfit, OSError) as error:
        sys.exit(str(error))
    print(f"{arguments.directory}: {', '.join(names)}")


if __name__ == "__main__":
    main()
