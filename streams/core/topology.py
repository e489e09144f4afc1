"""The stages and their topics, in the order of the flow. The topic tool, the pictures in the docs and the console's map are
all made from this."""

from dataclasses import dataclass

from schemas.topics import (
    GLASSES_ANSWERS,
    GLASSES_INTENTS,
    GLASSES_SIGHTINGS,
    PAYMENTS_COMMANDS,
    PAYMENTS_EVENTS,
    RECOGNITION_RESULTS,
    Topic,
)


@dataclass(frozen=True)
class Stage:
    """One folder of `streams/`. `roles` are the processes it runs as; `outside` is whom it talks to beyond Kafka and the
    database."""

    name: str
    summary: str
    roles: tuple[str, ...]
    consumes: tuple[Topic, ...] = ()
    emits: tuple[Topic, ...] = ()
    outside: tuple[str, ...] = ()


STAGES = (
    Stage(
        "gateway",
        "glasses and makers' clouds in and out; the merchants' API",
        roles=("gateway",),
        consumes=(GLASSES_ANSWERS,),
        emits=(GLASSES_SIGHTINGS, GLASSES_INTENTS, RECOGNITION_RESULTS),
        outside=("glasses", "makers", "merchants"),
    ),
    Stage(
        "sightings",
        "frame → recognition",
        roles=("sightings",),
        consumes=(GLASSES_SIGHTINGS,),
        emits=(RECOGNITION_RESULTS,),
        outside=("Triton",),
    ),
    Stage(
        "offers",
        "recognition, or the wearer's choice → offers in the wearer's language and currency",
        roles=("offers",),
        consumes=(RECOGNITION_RESULTS,),
        emits=(GLASSES_ANSWERS,),
        outside=("shops",),
    ),
    Stage(
        "intents",
        "payment requests, wear state and approvals → approved payments",
        roles=("intents",),
        consumes=(GLASSES_INTENTS,),
        emits=(GLASSES_ANSWERS, PAYMENTS_COMMANDS),
    ),
    Stage(
        "payments",
        "approved payments → providers → outcomes; the janitor asks until they are known",
        roles=("payments", "janitor"),
        consumes=(PAYMENTS_COMMANDS,),
        emits=(PAYMENTS_EVENTS, GLASSES_ANSWERS),
        outside=("payment providers",),
    ),
    Stage(
        "webhooks",
        "outcomes → merchants: fan-out, then signed deliveries on a schedule",
        roles=("webhooks", "dispatcher"),
        consumes=(PAYMENTS_EVENTS,),
        emits=(GLASSES_ANSWERS,),
        outside=("merchants",),
    ),
    Stage("console", "the operators' page: journeys, hop by hop", roles=("console",)),
)

ROLES: tuple[str, ...] = (*(role for stage in STAGES for role in stage.roles), "relay")


def mermaid() -> str:
    """The flow as a Mermaid picture."""
    lines = ["flowchart LR"]
    lines += [f'    {stage.name}["{stage.name}<br/><small>{stage.summary}</small>"]' for stage in STAGES]
    for stage in STAGES:
        for topic in stage.emits:
            node = topic.name.replace(".", "_")
            lines.append(f"    {stage.name} --> {node}([{topic.name}])")
        for topic in stage.consumes:
            lines.append(f"    {topic.name.replace('.', '_')} --> {stage.name}")
        lines += [f"    {stage.name} <-.-> {name.replace(' ', '_')}{{{{{name}}}}}" for name in stage.outside]
    return "\n".join(lines) + "\n"
