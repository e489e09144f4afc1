"""Exchange rates, behind `connectors.ports.ExchangeRates`."""
