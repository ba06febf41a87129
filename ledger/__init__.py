"""The write path: commands in, facts appended by one writer a partition, answers after they are durable."""
