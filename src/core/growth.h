// How much shared memory the current thread has caused to be allocated, so that growth can be charged to the request that
// causes it. Read the difference around a call.
#pragma once

#include <cstddef>

namespace guiderail {

inline thread_local std::size_t growth_of_this_thread = 0;

}  // namespace guiderail
