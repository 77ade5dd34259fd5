"""The statements of operators' commands, which see all accounts."""
