module agenttracing.dev/tests/idle

go 1.24
