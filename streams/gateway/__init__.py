"""glasses ⇄ platform: the WebSocket for devices, HTTP CloudEvents for makers' clouds, and the merchants' API."""
