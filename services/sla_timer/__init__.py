"""Promises: a clock per target, on time; and how answering holds up at peak hours.

| comes in | from |
|---|---|
| `tickets.messages` | intake: a customer wrote |
| `queues.*` | classifier, desk: queue and priority |
| `tickets.activity` | desk, agents' tools: replied, waiting, resolved, ... |

| goes out | says |
|---|---|
| `sla.events` | a clock started, was re-planned, warned, breached, met, paused, resumed, cancelled |
| `peaks.events` | a peak began or ended |
"""
