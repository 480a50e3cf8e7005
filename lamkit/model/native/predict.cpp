// Operators of predict.h as MindSpore calls them: inputs, then outputs, each a flat array.
#include "predict.h"

#include "call.h"
#include "version.h"

namespace {

using namespace lamkit;
using P = Predict<T, Act, kCentred>;

// How much of a network a forward sweep keeps for the pull.
enum Level { kNone, kHalf, kAll };

Kept<T> kept(Call& call, Level level) {
  Kept<T> k;
  if (level == kAll) k.h1 = call.next<T>();
  if (level != kNone) k.h2 = call.next<T>();
  if (level != kNone) k.y = call.next<T>();
  return k;
}

long live(Call& call, long M) { return std::min<long>(*call.next<int>(), M); }

// Factors of the reverse sweep, and where they are needed those of the forward sweep.
struct Factors {
  const T *ahead = nullptr, *back;
};
Factors factors(Call& call, Level level, Net<T>& net) {
  Factors f;
  if (level != kAll) f.ahead = Weights<T>::read(call.next<T>(), net);
  f.back = Weights<T>::read(call.next<T>(), net);
  return f;
}

// nodes, edges, cutoff, senders, receivers, gate weights [2, D], gate biases [2]
Gates<T> ends(Call& call, Net<T>& net) {
  net.N = call.dim(0);
  net.D = call.dim(1);
  net.nodes = call.next<T>();
  net.M = call.dim(0);
  net.rows = call.next<T>();
  Gates<T> g{net.M, net.D, net.N, net.rows, nullptr, call.next<T>(), nullptr, nullptr, nullptr, nullptr};
  g.senders = net.senders = call.next<int>();
  g.receivers = net.receivers = call.next<int>();
  g.weight = call.next<T>();
  g.bias = call.next<T>();
  return g;
}

// rows, live, weights ahead -> u, kept
int rows(void** params, int64_t** shapes, Level level) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    net.M = call.dim(0);
    net.rows = call.next<T>();
    const long n = live(call, net.M);
    const T* ahead = Weights<T>::read(call.next<T>(), net);
    T* u = call.next<T>();
    P::rows(net, ahead, n, u, kept(call, level));
  });
}

// du, live, kept, [rows, weights ahead], weights back -> gradient of the rows
int rows_pull(void** params, int64_t** shapes, Level level) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    net.M = call.dim(0);
    const T* du = call.next<T>();
    const long n = live(call, net.M);
    const Kept<T> k = kept(call, level);
    if (level != kAll) net.rows = call.next<T>();
    const Factors f = factors(call, level, net);
    P::rows_pull(net, f.ahead, f.back, n, du, k, call.next<T>());
  });
}

// ends, live, weights ahead -> messages, edges, kept
int layer(void** params, int64_t** shapes, Level level) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    const Gates<T> gates = ends(call, net);
    const long n = live(call, net.M);
    const T* ahead = Weights<T>::read(call.next<T>(), net);
    T *messages = call.next<T>(), *edges = call.next<T>();
    P::layer(net, ahead, gates, n, messages, edges, kept(call, level));
  });
}

// d_messages, d_edges (a single row: zero), ends, live, kept, [weights ahead], weights back -> edges, cutoff, nodes
int layer_pull(void** params, int64_t** shapes, Level level) {
  return guarded([&] {
    Call call{params, shapes};
    Net<T> net;
    P::Pull g{};
    g.d_messages = call.next<T>();
    const bool zero = call.dim(0) == 1;
    g.d_edges = call.next<T>();
    if (zero) g.d_edges = nullptr;
    const Gates<T> gates = ends(call, net);
    const long n = live(call, net.M);
    g.kept = kept(call, level);
    const Factors f = factors(call, level, net);
    g.out_edges = call.next<T>();
    g.out_cutoff = call.next<T>();
    g.out_nodes = call.next<T>();
    P::layer_pull(net, f.ahead, f.back, gates, n, g);
  });
}

}  // namespace

extern "C" {
int rows_none(LAMKIT_ARGS) { return rows(params, shapes, kNone); }
int rows_half(LAMKIT_ARGS) { return rows(params, shapes, kHalf); }
int rows_all(LAMKIT_ARGS) { return rows(params, shapes, kAll); }
int rows_none_pull(LAMKIT_ARGS) { return rows_pull(params, shapes, kNone); }
int rows_half_pull(LAMKIT_ARGS) { return rows_pull(params, shapes, kHalf); }
int rows_all_pull(LAMKIT_ARGS) { return rows_pull(params, shapes, kAll); }
int layer_none(LAMKIT_ARGS) { return layer(params, shapes, kNone); }
int layer_half(LAMKIT_ARGS) { return layer(params, shapes, kHalf); }
int layer_all(LAMKIT_ARGS) { return layer(params, shapes, kAll); }
int layer_none_pull(LAMKIT_ARGS) { return layer_pull(params, shapes, kNone); }
int layer_half_pull(LAMKIT_ARGS) { return layer_pull(params, shapes, kHalf); }
int layer_all_pull(LAMKIT_ARGS) { return layer_pull(params, shapes, kAll); }

// Numbers in a network's weights, written for the forward (ahead = 1) or for the reverse sweep; D = 0 on plain rows.
long weights_size(long K, long D, long H, long O, int ahead) {
  Net<T> net;
  net.K = K, net.D = D, net.H = H, net.O = O;
  return Weights<T>::size(net, ahead != 0);
}

// vectors and matrices as in Net, out: weights_size() numbers
void weights_write(long K, long D, long H, long O, int ahead, const T* const* w, T* out) {
  std::lock_guard<std::mutex> turn(Pool::instance().turn());
  Net<T> net;
  net.K = K, net.D = D, net.H = H, net.O = O;
  net.W1 = w[0], net.b1 = w[1], net.W2 = w[2], net.b2 = w[3], net.W3 = w[4], net.b3 = w[5];
  net.gain = w[6], net.shift = w[7];
  Weights<T>::write(net, out, ahead != 0);
}
}
