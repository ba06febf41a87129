"""Events as Avro: one schema an event type, the codec, the history of the schemas and its check."""
