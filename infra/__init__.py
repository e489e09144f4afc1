"""What starts, packages and watches the platform. The platform itself (streams, connectors, schemas) imports none of it."""
