"""The names of spans' attributes and of metrics, as data. OpenTelemetry's conventions first, ours (`augenblick.*`) after.

Only these attributes may be set: `streams.core.telemetry.tracing` refuses any other, so that nothing personal slips in.
"""

JOURNEY = "augenblick.journey.id"
OUTCOME = "augenblick.outcome"
ATTEMPT = "augenblick.attempt"
EVENT_TYPE = "cloudevents.event_type"
EVENT_ID = "cloudevents.event_id"
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION = "messaging.operation.type"
MESSAGING_DESTINATION = "messaging.destination.name"
MESSAGING_PARTITION = "messaging.destination.partition.id"
MESSAGING_OFFSET = "messaging.kafka.offset"
MESSAGING_GROUP = "messaging.consumer.group.name"
BODY_SIZE = "messaging.message.body.size"
DATABASE_SYSTEM = "db.system.name"
DATABASE_OPERATION = "db.operation.name"
RPC_SYSTEM = "rpc.system"
RPC_SERVICE = "rpc.service"
RPC_METHOD = "rpc.method"
HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
SERVER_ADDRESS = "server.address"
ERROR_TYPE = "error.type"
PROVIDER = "augenblick.payment.provider"
PAYMENT = "augenblick.payment.id"
SHOP = "augenblick.shop"
MODEL = "augenblick.model"

ATTRIBUTES = frozenset(value for name, value in globals().copy().items() if name.isupper() and isinstance(value, str))

# Metrics: name → (unit, what it measures).
METRICS: dict[str, tuple[str, str]] = {
    "messaging.process.duration": ("s", "Handling one event, from taking it in to its acknowledgement."),
    "messaging.client.operation.duration": ("s", "Sending one event, to the broker's acknowledgement."),
    "augenblick.dead_letters": ("{event}", "Events that could not be handled."),
    "augenblick.late": ("{event}", "Events that were passed over because their deadline had come."),
    "augenblick.duplicates": ("{event}", "Events that had been handled already."),
    "augenblick.sightings.dropped": ("{frame}", "Frames that a newer one replaced or that were not answered in time."),
    "augenblick.models.missing": ("{frame}", "Frames that a model was asked about and did not answer, by model and reason."),
    "augenblick.catalogues.left_out": (
        "{catalogue}",
        "Merchants' catalogues that a frame was not compared with: too many, no time, or not ready.",
    ),
    "augenblick.glance_to_answer": ("s", "Capture of the frame to the answer's sending to the glasses."),
    "augenblick.glance_to_paid": ("s", "Capture of the frame to the money being taken."),
    "augenblick.refusals": ("{request}", "Requests refused at an edge, by problem code."),
    "augenblick.deliveries": ("{attempt}", "Webhook attempts, by result."),
    "augenblick.payments": ("{payment}", "Payments, by the state they reached."),
    "augenblick.payments.given_up": ("{payment}", "Commands whose outcome nobody asks about any more."),
    "augenblick.payments.frozen": ("{payment}", "Payments frozen because an answer or a notification did not fit."),
    "augenblick.notifications": ("{notification}", "Providers' notifications, by what became of them."),
}
