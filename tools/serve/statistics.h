// The statistics of a server that quantizes: its routes, metrics and signals, and what it leaves in the end.
#pragma once

#include "server/server.h"
#include "tools/common/quant_session.h"

namespace pi0::tools {

// GET /stats, POST /stats/reset, gauges of the metrics, and the file of --stats-output on SIGUSR1 and, unless it is 0,
// every `interval_seconds`. The session must outlive the server.
void add_statistics(server::Server& server, QuantSession& session, double interval_seconds);

// The same routes and signal of a server without statistics: they say so.
void refuse_statistics(server::Server& server);

// Runs the server. Then the file and, on stdout, a table, if there is a session.
void serve_until_signal(server::Server& server, const QuantSession* session);

}  // namespace pi0::tools
