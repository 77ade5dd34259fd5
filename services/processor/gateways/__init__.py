"""Payment gateways behind one small protocol."""
