// The statistics of a server: routes, metrics and signals, and the file and table at its end.
#pragma once

#include "server/server.h"
#include "tools/common/quant_session.h"

namespace pi0::tools {

// GET /stats, POST /stats/reset, gauges of the metrics, and the file of --stats-output on SIGUSR1 and, unless it is 0,
// every `interval_seconds`. The session must outlive the server.
void add_statistics(server::Server& server, QuantSession& session, double interval_seconds);

// The same routes and signal for a server without statistics; they answer that there are none.
void refuse_statistics(server::Server& server);

// Runs the server. If there is a session, then writes the file and prints the table.
void serve_until_signal(server::Server& server, const QuantSession* session);

}  // namespace pi0::tools
