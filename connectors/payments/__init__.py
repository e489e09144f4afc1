"""Payment providers, one folder each, behind `connectors.ports.PaymentConnector`."""
