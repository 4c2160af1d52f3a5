// Catch2 2 needs a main of ours; with Catch2 3 its Catch2WithMain is linked and this is empty.
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
#endif
